/* Does with a device what it is for, and says so; with less than that it fails.
 *
 * usage: use-device tun | fuse | kvm */

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "use-device: cannot %s: %s\n", what, strerror(errno));
    exit(1);
}

static int opened(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    return fd;
}

/* An interface in this network namespace. */
static void tun(void) {
    int fd = opened("/dev/net/tun");
    struct ifreq request = {.ifr_name = "made%d", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        fail("make an interface");
    if (if_nametoindex(request.ifr_name) == 0)
        fail("see the interface");
    printf("made the interface %s\n", request.ifr_name);
}

/* A file system, which asks its server to begin. */
static void fuse(void) {
    int fd = opened("/dev/fuse");
    char options[64], request[FUSE_MIN_READ_BUFFER];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    if (mkdir("/tmp/mounted", 0700) < 0 && errno != EEXIST)
        fail("make a directory");
    if (mount("use-device", "/tmp/mounted", "fuse", 0, options) < 0)
        fail("mount a file system");
    ssize_t length = read(fd, request, sizeof request);
    if (length < (ssize_t)sizeof(struct fuse_in_header))
        fail("read what the file system asks for");
    unsigned opcode = ((struct fuse_in_header *)request)->opcode;
    if (umount2("/tmp/mounted", MNT_DETACH) < 0)
        fail("unmount it");
    printf("mounted a file system, which asks for %s\n", opcode == FUSE_INIT ? "its beginning" : "something else");
}

/* A machine. */
static void kvm(void) {
    int fd = opened("/dev/kvm");
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION || ioctl(fd, KVM_CREATE_VM, 0) < 0)
        fail("make a virtual machine");
    printf("made a virtual machine\n");
}

int main(int count, char **arguments) {
    const char *what = count == 2 ? arguments[1] : "";
    if (!strcmp(what, "tun"))
        tun();
    else if (!strcmp(what, "fuse"))
        fuse();
    else if (!strcmp(what, "kvm"))
        kvm();
    else {
        fputs("usage: use-device tun | fuse | kvm\n", stderr);
        return 2;
    }
    return 0;
}
