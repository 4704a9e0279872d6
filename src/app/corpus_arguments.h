#pragma once
// What the commands that read text say about it.
#include "grist/data/corpus.h"

namespace grist::app {

template <class Arguments> CorpusOptions corpus_options(const Arguments& a) {
  return {.inputs = a.inputs,
          .text_key = a.text_key,
          .document_separator =
              a.document_separator.empty() ? "" : parse_separator(a.document_separator),
          .on_bad_line = parse_on_bad_line(a.on_bad_line)};
}

}  // namespace grist::app
