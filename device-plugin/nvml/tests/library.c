/* A library with the interface of NVIDIA's (nvml.h), of a made-up machine: two GPUs with two NVLinks between them, of which the
 * second has two partitions. An error happens when a file `xid` appears beside the library: the number of the GPU and of the error. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10 };
enum { XID_CRITICAL_ERROR = 8 };

typedef struct device {
    unsigned index;
    int partition; /* -1: a whole GPU */
} *device_t;

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_t;

typedef struct {
    device_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event_t;

static struct device gpus[] = {{0, -1}, {1, -1}};
static struct device partitions[] = {{1, 0}, {1, 2}};
static const char *addresses[] = {"00000000:3B:00.0", "00000001:AF:00.0"};

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code ? "an error" : "success"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "570.86.15");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if (index > 1)
        return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) {
    *minor = device->index;
    return SUCCESS;
}

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length) {
    if (device->partition < 0)
        snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012u", device->index);
    else
        snprintf(uuid, length, "MIG-00000000-0000-0000-0000-%012d", device->partition);
    return SUCCESS;
}

int nvmlDeviceGetName(device_t device, char *name, unsigned length) {
    snprintf(name, length, "NVIDIA H100 80GB HBM3%s", device->partition < 0 ? "" : device->partition ? " MIG 1g.10gb+me" : " MIG 1g.10gb");
    return SUCCESS;
}

static void address(pci_t *pci, unsigned index) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%s", addresses[index]);
}

int nvmlDeviceGetPciInfo_v3(device_t device, pci_t *pci) {
    address(pci, device->index);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    if (device->index == 0)
        return NOT_SUPPORTED;
    *current = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    *count = device->index ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *partition) {
    if (device->index != 1 || index > 2 || index == 1)
        return NOT_FOUND;
    *partition = &partitions[index / 2];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
    *id = 7 + device->partition;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id) {
    *id = device->partition / 2;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(device_t device, unsigned link, unsigned *active) {
    (void)device;
    *active = link < 2;
    return link < 4 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(device_t device, unsigned link, pci_t *pci) {
    (void)link;
    address(pci, !device->index);
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) {
    *set = gpus;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) { return set == gpus ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceGetSupportedEventTypes(device_t device, unsigned long long *types) {
    (void)device;
    *types = XID_CRITICAL_ERROR;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(device_t device, unsigned long long types, void *set) {
    (void)set;
    (void)types;
    /* The first GPU's driver has changed its mind. */
    return device->index ? SUCCESS : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, event_t *event, unsigned milliseconds) {
    char path[4096];
    Dl_info here;
    (void)set;
    dladdr((void *)nvmlEventSetWait_v2, &here);
    snprintf(path, sizeof path, "%s", here.dli_fname);
    snprintf(strrchr(path, '/'), 5, "/xid");
    for (unsigned waited = 0; waited < milliseconds; waited += 10) {
        FILE *file = fopen(path, "r");
        unsigned gpu;
        unsigned long long xid;
        int read = file ? fscanf(file, "%u %llu\n", &gpu, &xid) : 0;
        if (file)
            fclose(file);
        if (read == 2 && gpu < 2) {
            unlink(path);
            *event = (event_t){&gpus[gpu], XID_CRITICAL_ERROR, xid, ~0u, ~0u};
            return SUCCESS;
        }
        usleep(10000);
    }
    return TIMEOUT;
}
