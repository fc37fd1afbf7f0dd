// Loaded before the C library by deploy/build-static: what a build script draws at random is always the same, so
// that code which it generates in the order of a hash map is too. Every other process (cargo's own connections
// among them) gets the kernel's randomness.
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t getrandom(void *to, size_t length, unsigned int flags) {
    if (strncmp(program_invocation_short_name, "build-script-", 13) != 0)
        return syscall(SYS_getrandom, to, length, flags);
    memset(to, 7, length);
    return (ssize_t)length;
}
