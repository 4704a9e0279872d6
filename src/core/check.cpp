#include "grist/core/check.h"

namespace grist {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  fail(ExitCode::internal, "{} (broken contract: {} at {}:{})", message, condition, file, line);
}

}  // namespace grist
