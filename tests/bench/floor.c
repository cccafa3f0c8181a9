/* The floor: what the least that "start one pod" can consist of costs on this machine, step by step, with nothing
 * in between. No daemon, no manifest, no image store: directories, cgroups, one clone3 into new namespaces, loopback,
 * an overlay, pivot_root, execve; then the way back. What a runtime takes beyond this is its own doing.
 *
 * usage: floor ROOTFS COUNT      ROOTFS: a directory with bin/busybox in it
 *
 * Takes a byte of standard input before each round, and writes what the start took, in milliseconds, after it: whoever
 * compares it with something else lets them take turns. `yes | floor ...` does it alone. Closes with a table.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The moments between which time is taken, in their order. Those from BORN to EXEC are the child's. */
enum moment { BEGIN, DIRECTORIES, CGROUPS, CLONED, ATTACHED, BORN, LOOPBACK, OVERLAY, PIVOTED, ENDED, UNCGROUPED, REMOVED, MOMENTS };

static const char *const what[MOMENTS] = {
	[DIRECTORIES] = "overlay directories made",
	[CGROUPS] = "cgroups made and limited",
	[CLONED] = "clone3 into mnt, net, ipc, uts, pid, cgroup",
	[ATTACHED] = "cgroups entered",
	[BORN] = "the child wakes up",
	[LOOPBACK] = "loopback up",
	[OVERLAY] = "overlay mounted",
	[PIVOTED] = "/proc mounted, root pivoted",
	[ENDED] = "execve, the program, its end",
	[UNCGROUPED] = "cgroups removed",
	[REMOVED] = "overlay directories removed",
};

static double *shared; /* MOMENTS of the current round, seen by both processes */
static char base[512], rootfs[512];

/* The hierarchies that limit something, and the files that do. */
static struct { char directory[256]; const char *file, *value; } hierarchies[8];
static int hierarchy_count, unified;

static void die(const char *format, ...)
{
	va_list arguments;
	int error = errno;
	va_start(arguments, format);
	fprintf(stderr, "floor: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, ": %s\n", strerror(error));
	va_end(arguments);
	exit(1);
}

/* Prints into an array, whole or not at all. */
#define format(array, ...) do { \
	if (snprintf(array, sizeof(array), __VA_ARGS__) >= (int)sizeof(array)) \
		die("too long: %s", array); \
} while (0)

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void mark(enum moment moment) { shared[moment] = now(); }

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, text, strlen(text)) < 0)
		die("write %s to %s", text, path);
	close(file);
}

static void add_hierarchy(const char *mount, const char *file, const char *value)
{
	char path[256];
	if (access(mount, W_OK))
		return;
	format(path, "%s/coracle-floor-%d", mount, getpid());
	if (mkdir(path, 0755))
		die("mkdir %s", path);
	format(hierarchies[hierarchy_count].directory, "%s", path);
	hierarchies[hierarchy_count].file = file;
	hierarchies[hierarchy_count++].value = value;
}

static void find_hierarchies(void)
{
	unified = !access("/sys/fs/cgroup/cgroup.controllers", R_OK);
	if (unified) {
		write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids");
		add_hierarchy("/sys/fs/cgroup", NULL, NULL);
		char path[256];
		format(path, "%s/cgroup.subtree_control", hierarchies[0].directory);
		write_file(path, "+cpu +memory +pids");
		hierarchies[0].file = "memory.max";
		hierarchies[0].value = "67108864";
		return;
	}
	add_hierarchy("/sys/fs/cgroup/cpu", "cpu.shares", "512");
	add_hierarchy("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "67108864");
	add_hierarchy("/sys/fs/cgroup/pids", "pids.max", "100");
	add_hierarchy("/sys/fs/cgroup/devices", NULL, NULL);
}

static void bring_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (socket_ < 0 || ioctl(socket_, SIOCSIFFLAGS, &request))
		die("lo up");
	close(socket_);
}

static _Noreturn void become_container(const char *directory, int go)
{
	char byte, options[2048], merged[600];
	if (read(go, &byte, 1) != 1)
		_exit(2);
	mark(BORN);
	bring_loopback_up();
	mark(LOOPBACK);
	format(merged, "%s/merged", directory);
	format(options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", rootfs, directory, directory);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("overlay", merged, "overlay", 0, options))
		die("mount overlay with %s", options);
	mark(OVERLAY);
	if (chdir(merged) || mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		die("mount proc");
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		die("pivot_root");
	mark(PIVOTED);
	execl("/bin/busybox", "true", NULL);
	die("execve /bin/busybox");
	_exit(3);
}

static void remove_directory(const char *parent, const char *name)
{
	char path[1024];
	format(path, "%s/%s", parent, name);
	if (rmdir(path))
		die("rmdir %s", path);
}

static void start_and_remove_one(int number)
{
	char directory[560], path[1024];
	static const char *const parts[] = { "", "upper", "work", "merged" };
	mark(BEGIN);
	format(directory, "%s/%d", base, number);
	for (int part = 0; part < 4; part++) {
		format(path, "%s/%s", directory, parts[part]);
		if (mkdir(path, 0755))
			die("mkdir %s", path);
	}
	mark(DIRECTORIES);
	for (int i = 0; i < hierarchy_count; i++) {
		format(path, "%s/%d", hierarchies[i].directory, number);
		if (mkdir(path, 0755))
			die("mkdir %s", path);
		if (hierarchies[i].file) {
			format(path, "%s/%d/%s", hierarchies[i].directory, number, hierarchies[i].file);
			write_file(path, hierarchies[i].value);
		}
	}
	mark(CGROUPS);

	int go[2];
	if (pipe2(go, O_CLOEXEC))
		die("pipe");
	struct clone_args arguments = {
		.flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWCGROUP,
		.exit_signal = SIGCHLD,
	};
	int cgroup = -1;
	if (unified) { /* born inside: no move at all */
		format(path, "%s/%d", hierarchies[0].directory, number);
		cgroup = open(path, O_PATH | O_CLOEXEC);
		arguments.flags |= CLONE_INTO_CGROUP;
		arguments.cgroup = cgroup;
	}
	pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
	if (child < 0)
		die("clone3");
	if (child == 0)
		become_container(directory, go[0]);
	mark(CLONED);
	for (int i = 0; !unified && i < hierarchy_count; i++) {
		char pid[16];
		format(pid, "%d", child);
		format(path, "%s/%d/cgroup.procs", hierarchies[i].directory, number);
		write_file(path, pid);
	}
	mark(ATTACHED);
	if (write(go[1], "", 1) != 1)
		die("write");
	int status;
	if (waitpid(child, &status, 0) != child || status != 0)
		die("the child ended with status %d", status);
	mark(ENDED);

	close(go[0]);
	close(go[1]);
	if (cgroup >= 0)
		close(cgroup);
	for (int i = 0; i < hierarchy_count; i++) {
		format(path, "%s/%d", hierarchies[i].directory, number);
		while (rmdir(path)) /* a dead process leaves its cgroup a moment after it was waited for */
			if (errno != EBUSY)
				die("rmdir %s", path);
	}
	mark(UNCGROUPED);
	remove_directory(directory, "work/work");
	remove_directory(directory, "work");
	remove_directory(directory, "upper");
	remove_directory(directory, "merged");
	remove_directory(base, strrchr(directory, '/') + 1);
	mark(REMOVED);
}

static int ascending(const void *left, const void *right)
{
	double difference = *(const double *)left - *(const double *)right;
	return (difference > 0) - (difference < 0);
}

static void report(const char *name, double *values, int count)
{
	qsort(values, count, sizeof *values, ascending);
	printf("| %s | %.2f | %.2f | %.2f |\n", name, values[count / 2], values[(int)(count * 0.99)], values[0]);
}

int main(int count, char **arguments)
{
	int rounds = count > 2 ? atoi(arguments[2]) : 0;
	if (rounds < 1 || !realpath(arguments[1], rootfs)) {
		fprintf(stderr, "usage: floor ROOTFS COUNT\n");
		return 2;
	}
	format(base, "%s.floor-%d", rootfs, getpid());
	if (mkdir(base, 0700))
		die("mkdir %s", base);
	find_hierarchies();
	shared = mmap(NULL, MOMENTS * sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double *taken = calloc((size_t)rounds * MOMENTS, sizeof *taken), *column = calloc(rounds, sizeof *column);
	if (shared == MAP_FAILED || !taken || !column)
		die("memory");
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int round = 0; round < rounds; round++) {
		char byte;
		if (read(STDIN_FILENO, &byte, 1) != 1)
			die("nobody asks for round %d", round);
		start_and_remove_one(round);
		printf("%.3f\n", shared[PIVOTED] - shared[BEGIN]);
		memcpy(taken + round * MOMENTS, shared, MOMENTS * sizeof *shared);
	}
	printf("| step | p50 ms | p99 ms | min ms |\n|---|---|---|---|\n");
	for (int moment = BEGIN + 1; moment < MOMENTS; moment++) {
		for (int round = 0; round < rounds; round++)
			column[round] = taken[round * MOMENTS + moment] - taken[round * MOMENTS + moment - 1];
		report(what[moment], column, rounds);
	}
	for (int round = 0; round < rounds; round++)
		column[round] = taken[round * MOMENTS + PIVOTED] - taken[round * MOMENTS + BEGIN];
	report("**start: until execve**", column, rounds);
	for (int round = 0; round < rounds; round++)
		column[round] = taken[round * MOMENTS + REMOVED] - taken[round * MOMENTS + ENDED];
	report("**removal**", column, rounds);
	for (int i = 0; i < hierarchy_count; i++)
		rmdir(hierarchies[i].directory);
	return rmdir(base);
}
