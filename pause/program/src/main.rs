//! pause: holds a pod's namespaces, is the parent of all its processes, and outlives the agent.
//!
//! It is frozen for the life of a pod, so it is small and knows nothing of OCI or Kubernetes: it starts
//! the programs it is given, keeps the descriptors it is given, and remembers how its children ended. The
//! protocol is that of `coracle-pause-wire`. There is no C library, no allocator, no thread and no
//! second wait: everything happens between two calls of `ppoll`.
//!
//! SIGTERM and SIGINT end pause as soon as none of its children lives, and not before: it must never
//! leave a container without a parent, and a host that shuts down must not wait for it.

#![no_std]
#![no_main]

mod children;
mod descriptors;
mod exits;
mod memory;
mod reaper;
mod requests;
mod sandbox;
mod serve;
mod shared;
mod socket;
mod spawn;
mod startup;
mod sys;

/// Nothing here panics on purpose: every index is checked and every error is a value. Should it happen
/// all the same, a dead pause is seen at once and its pod replaced; a hanging one would not be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}

/// Called by the entry point with the initial stack pointer.
extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: this is the stack pointer at process entry, where the kernel put argc and argv.
    let arguments = unsafe { startup::Arguments::from_stack(stack) };
    let sandbox = startup::start(arguments);
    serve::serve(sandbox)
}
