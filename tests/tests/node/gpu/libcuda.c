/* As much of CUDA's driver API as adding two vectors takes, by the processor: of the GPUs whose device nodes this process may open.
 * Nothing answers at the nodes' numbers, so that they may be opened shows in another error than that they may not. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500 };

static int there[16], count;

static int may_open(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || errno == ENXIO || errno == ENODEV;
}

int cuInit(unsigned flags) {
    char path[32];
    (void)flags;
    if (!may_open("/dev/nvidiactl") || !may_open("/dev/nvidia-uvm"))
        return NO_DEVICE;
    for (int minor = 0; minor < 16; minor++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", minor);
        if (may_open(path))
            there[count++] = minor;
    }
    return count ? SUCCESS : NO_DEVICE;
}

int cuGetErrorString(int code, const char **text) {
    *text = code == NO_DEVICE ? "no CUDA-capable device is detected" : "made up";
    return SUCCESS;
}

int cuDeviceGetCount(int *found) {
    *found = count;
    return count ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int number) {
    *device = number;
    return number < count ? SUCCESS : NO_DEVICE;
}

int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "Made up %d", there[device]);
    return SUCCESS;
}

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    (void)flags;
    *context = &there[device];
    return SUCCESS;
}

int cuCtxDestroy_v2(void *context) { return context ? SUCCESS : NOT_FOUND; }
int cuCtxSynchronize(void) { return SUCCESS; }

int cuModuleLoadData(void **module, const void *image) {
    *module = (void *)image;
    return strstr(image, ".entry vector_add(") ? SUCCESS : INVALID_IMAGE;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = module;
    return strcmp(name, "vector_add") ? NOT_FOUND : SUCCESS;
}

int cuMemAlloc_v2(uint64_t *memory, size_t size) {
    *memory = (uintptr_t)malloc(size);
    return SUCCESS;
}

int cuMemFree_v2(uint64_t memory) {
    free((void *)(uintptr_t)memory);
    return SUCCESS;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) {
    memcpy((void *)(uintptr_t)to, from, size);
    return SUCCESS;
}

int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) {
    memcpy(to, (void *)(uintptr_t)from, size);
    return SUCCESS;
}

int cuLaunchKernel(void *function, unsigned grid, unsigned y, unsigned z, unsigned block, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **parameters, void **extra) {
    const float *a = *(const float **)parameters[0], *b = *(const float **)parameters[1];
    float *sum = *(float **)parameters[2];
    uint32_t elements = *(uint32_t *)parameters[3];
    (void)y, (void)z, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    for (uint32_t i = 0; i < grid * block && i < elements; i++)
        sum[i] = a[i] + b[i];
    return function ? SUCCESS : NOT_FOUND;
}
