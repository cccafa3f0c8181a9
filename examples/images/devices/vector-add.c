/* Adds two vectors on every GPU that CUDA finds, and checks each sum: what a container with a GPU can do and another cannot.
 * It needs no toolkit: the driver's library is asked for by name, the kernel is text (PTX) that the driver translates. */

#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ELEMENTS = 1 << 20, BLOCK = 256 };

/* For any GPU since Maxwell: the driver translates it for those that came later. */
static const char kernel[] =
    ".version 6.0\n"
    ".target sm_50\n"
    ".address_size 64\n"
    ".visible .entry vector_add(.param .u64 pa, .param .u64 pb, .param .u64 psum, .param .u32 pcount)\n"
    "{\n"
    "    .reg .pred %p<2>;\n"
    "    .reg .f32 %f<4>;\n"
    "    .reg .b32 %r<6>;\n"
    "    .reg .b64 %rd<11>;\n"
    "    ld.param.u64 %rd1, [pa];\n"
    "    ld.param.u64 %rd2, [pb];\n"
    "    ld.param.u64 %rd3, [psum];\n"
    "    ld.param.u32 %r1, [pcount];\n"
    "    mov.u32 %r2, %ctaid.x;\n"
    "    mov.u32 %r3, %ntid.x;\n"
    "    mov.u32 %r4, %tid.x;\n"
    "    mad.lo.s32 %r5, %r2, %r3, %r4;\n"
    "    setp.ge.u32 %p1, %r5, %r1;\n"
    "    @%p1 bra done;\n"
    "    cvta.to.global.u64 %rd4, %rd1;\n"
    "    cvta.to.global.u64 %rd5, %rd2;\n"
    "    cvta.to.global.u64 %rd6, %rd3;\n"
    "    mul.wide.u32 %rd7, %r5, 4;\n"
    "    add.s64 %rd8, %rd4, %rd7;\n"
    "    add.s64 %rd9, %rd5, %rd7;\n"
    "    add.s64 %rd10, %rd6, %rd7;\n"
    "    ld.global.f32 %f1, [%rd8];\n"
    "    ld.global.f32 %f2, [%rd9];\n"
    "    add.f32 %f3, %f1, %f2;\n"
    "    st.global.f32 [%rd10], %f3;\n"
    "done:\n"
    "    ret;\n"
    "}\n";

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("vector-add: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *library;

static void *find(const char *name) {
    void *function = dlsym(library, name);
    if (!function)
        fail("libcuda.so.1 has no %s", name);
    return function;
}

static void check(int code, const char *name, int device) {
    const char *text = NULL;
    int (*describe)(int, const char **) = find("cuGetErrorString");
    if (code == 0)
        return;
    describe(code, &text);
    fail("%s on device %d: error %d: %s", name, device, code, text ? text : "unknown");
}

/* Calls a function of CUDA's driver API, and ends the program where it fails. */
#define CALL(device, name, parameters, ...) check(((int(*) parameters)find(#name))(__VA_ARGS__), #name, device)

static void add(int number, const float *a, const float *b, float *sum) {
    void *context, *module, *function;
    uint64_t memory[3];
    uint32_t count = ELEMENTS;
    int device;
    char name[256] = "";
    CALL(number, cuDeviceGet, (int *, int), &device, number);
    CALL(number, cuDeviceGetName, (char *, int, int), name, sizeof name, device);
    CALL(number, cuCtxCreate_v2, (void **, unsigned, int), &context, 0, device);
    CALL(number, cuModuleLoadData, (void **, const void *), &module, kernel);
    CALL(number, cuModuleGetFunction, (void **, void *, const char *), &function, module, "vector_add");
    for (int i = 0; i < 3; i++)
        CALL(number, cuMemAlloc_v2, (uint64_t *, size_t), &memory[i], ELEMENTS * sizeof *a);
    CALL(number, cuMemcpyHtoD_v2, (uint64_t, const void *, size_t), memory[0], a, ELEMENTS * sizeof *a);
    CALL(number, cuMemcpyHtoD_v2, (uint64_t, const void *, size_t), memory[1], b, ELEMENTS * sizeof *b);
    void *parameters[] = {&memory[0], &memory[1], &memory[2], &count};
    CALL(number, cuLaunchKernel,
         (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **), function,
         (ELEMENTS + BLOCK - 1) / BLOCK, 1, 1, BLOCK, 1, 1, 0, NULL, parameters, NULL);
    CALL(number, cuCtxSynchronize, (void));
    CALL(number, cuMemcpyDtoH_v2, (void *, uint64_t, size_t), sum, memory[2], ELEMENTS * sizeof *sum);
    for (int i = 0; i < ELEMENTS; i++)
        if (sum[i] != a[i] + b[i])
            fail("element %d on device %d is %g and should be %g", i, number, sum[i], a[i] + b[i]);
    for (int i = 0; i < 3; i++)
        CALL(number, cuMemFree_v2, (uint64_t), memory[i]);
    CALL(number, cuCtxDestroy_v2, (void *), context);
    printf("%d sums are right on device %d: %s\n", ELEMENTS, number, name);
}

int main(void) {
    static float a[ELEMENTS], b[ELEMENTS], sum[ELEMENTS];
    int count = 0;
    library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
        fail("%s", dlerror());
    CALL(-1, cuInit, (unsigned), 0);
    CALL(-1, cuDeviceGetCount, (int *), &count);
    for (int i = 0; i < ELEMENTS; i++) {
        a[i] = (float)i;
        b[i] = (float)(2 * i % 1000);
    }
    for (int device = 0; device < count; device++)
        add(device, a, b, sum);
    printf("devices: %d\n", count);
    return count > 0 ? 0 : 1;
}
