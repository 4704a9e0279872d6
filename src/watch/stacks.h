#pragma once
// Stacks of all threads of this process, for the moment when a job hangs. A real-time signal makes
// each thread note its frames. A thread that is stuck inside the allocator or the loader may hold a
// lock that this needs: the caller keeps an alarm ready that ends the process.
#include <string>

namespace grist::watch {

void install_stack_handler();  // once a process; again is harmless
// Writes one block a thread to stderr, each line headed by `who` ("rank 3"). Takes at most about
// 0.3 s; threads that do not answer are named.
void write_stacks(const char* who);

}  // namespace grist::watch
