#pragma once
namespace grist::emu {
// An access to memory that is not there, by a kernel on this OS thread, becomes a report like any
// other (Block::fail); elsewhere it ends the process as ever.
void watch_faults_of_this_os_thread();
}  // namespace grist::emu
