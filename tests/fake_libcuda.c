/* Stands in for the NVIDIA driver (libcuda.so.1) where there is no GPU: its device memory is host
 * memory, and its name says so. What a stream is given waits in a queue until somebody waits for the
 * stream, as late as a real one may do it, so that what relies on more than it waited for goes wrong.
 *
 * Environment:
 *   FAKE_CUDA=no-device           cuInit says CUDA_ERROR_NO_DEVICE
 *   FAKE_CUDA_CAPABILITY=89       the compute capability (8.9 unless told)
 *   FAKE_CUDA_DRIVER=13000        the CUDA version of the driver
 *   FAKE_CUDA_MEMORY=8589934592   bytes of device memory in all
 *   FAKE_CUDA_LOG=FILE            a line for each call that allocates, frees, copies or waits
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
};

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void (*HostFunction)(void *);

typedef struct Event {
    int recorded, done;
    double ms;
} Event;

typedef struct Task {
    struct Task *next;
    void *to;
    const void *from;
    size_t size;
    int value;
    Event *event;
    HostFunction function;
} Task;

typedef struct Stream {
    struct Stream *next;
    Task *first, *last;
} Stream;

typedef struct Block {
    struct Block *next;
    char *address;
    size_t size;
    int on_device;
} Block;

static pthread_mutex_t lock;
static int ready;
static size_t used, total = (size_t)8 << 30;
static int capability = 89, version = 13000, retained;
static Block *blocks;
static Stream *streams, default_stream;
static long streams_open, events_open;
static char context_of_gpu;
static __thread void *current[16];
static __thread int depth;
static FILE *told;

__attribute__((constructor)) static void start(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &kind);
}

static void tell(const char *what, size_t size) {
    if (told) {
        fprintf(told, "%s %zu\n", what, size);
        fflush(told);
    }
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Whether all of it lies in one block of that kind that is still allocated. */
static int lies_in(const void *address, size_t size, int on_device) {
    for (Block *b = blocks; b; b = b->next)
        if (b->on_device == on_device && (const char *)address >= b->address &&
            (const char *)address + size <= b->address + b->size)
            return 1;
    return 0;
}

static CUresult have_context(void) {
    return !ready ? NOT_INITIALIZED : current[depth] ? OK : INVALID_CONTEXT;
}

CUresult cuInit(unsigned flags) {
    const char *text = getenv("FAKE_CUDA");
    if (flags) return INVALID_VALUE;
    if (text && !strcmp(text, "no-device")) return NO_DEVICE;
    if ((text = getenv("FAKE_CUDA_CAPABILITY"))) capability = atoi(text);
    if ((text = getenv("FAKE_CUDA_DRIVER"))) version = atoi(text);
    if ((text = getenv("FAKE_CUDA_MEMORY"))) total = strtoull(text, NULL, 10);
    if (!told && (text = getenv("FAKE_CUDA_LOG"))) told = fopen(text, "a");
    ready = 1;
    return OK;
}

CUresult cuDriverGetVersion(int *found) {
    const char *text = getenv("FAKE_CUDA_DRIVER");
    *found = text ? atoi(text) : version;
    return OK;
}

CUresult cuDeviceGetCount(int *count) {
    *count = ready;
    return ready ? OK : NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int number) {
    if (!ready) return NOT_INITIALIZED;
    if (number) return INVALID_DEVICE;
    *device = 0;
    return OK;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    if (device) return INVALID_DEVICE;
    snprintf(name, size, "Fake GPU (host memory)");
    return OK;
}

CUresult cuDeviceGetUuid_v2(char *uuid, CUdevice device) {
    if (device) return INVALID_DEVICE;
    memcpy(uuid, "Fake GPU, no NVI", 16);
    return OK;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    if (device) return INVALID_DEVICE;
    *bytes = total;
    return OK;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    if (device) return INVALID_DEVICE;
    switch (attribute) {
    case 75: *value = capability / 10; return OK;
    case 76: *value = capability % 10; return OK;
    case 16: *value = 1; return OK;    /* multiprocessors */
    case 41: *value = 1; return OK;    /* unified addressing */
    case 31: *value = 1; return OK;    /* concurrent kernels */
    case 10: *value = 32; return OK;   /* warp size */
    default: *value = 0; return OK;
    }
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    if (device) return INVALID_DEVICE;
    *major = capability / 10;
    *minor = capability % 10;
    return OK;
}

/* Contexts: there is the primary one. */

CUresult cuDevicePrimaryCtxRetain(void **context, CUdevice device) {
    if (!ready) return NOT_INITIALIZED;
    if (device) return INVALID_DEVICE;
    retained++;
    *context = &context_of_gpu;
    return OK;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (device || !retained) return INVALID_CONTEXT;
    retained--;
    return OK;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    if (device) return INVALID_DEVICE;
    *flags = 0;
    *active = retained > 0;
    return OK;
}

CUresult cuCtxSetCurrent(void *context) {
    current[depth] = context;
    return OK;
}

CUresult cuCtxGetCurrent(void **context) {
    *context = current[depth];
    return OK;
}

CUresult cuCtxPushCurrent_v2(void *context) {
    if (depth == 15) return INVALID_VALUE;
    current[++depth] = context;
    return OK;
}

CUresult cuCtxPopCurrent_v2(void **context) {
    if (!depth && !current[0]) return INVALID_CONTEXT;
    if (context) *context = current[depth];
    current[depth] = NULL;
    if (depth) depth--;
    return OK;
}

CUresult cuCtxAttach(void **context, unsigned flags) {
    (void)flags;
    if (have_context()) return have_context();
    *context = current[depth];
    return OK;
}

CUresult cuCtxDetach(void *context) {
    (void)context;
    return OK;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    *device = 0;
    return have_context();
}

CUresult cuCtxGetApiVersion(void *context, unsigned *found) {
    (void)context;
    *found = 3020;
    return OK;
}

/* Memory. */

static CUresult allocate(void **address, size_t size, int on_device) {
    CUresult code = have_context();
    if (code) return code;
    if (!size) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (on_device && used + size > total) {
        pthread_mutex_unlock(&lock);
        return OUT_OF_MEMORY;
    }
    Block *block = malloc(sizeof *block);
    *address = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(*address, 0xA5, size); /* nobody may count on zeros */
    *block = (Block){blocks, *address, size, on_device};
    blocks = block;
    if (on_device) used += size;
    tell(on_device ? "allocate-device" : "allocate-host", size);
    pthread_mutex_unlock(&lock);
    return OK;
}

static CUresult release(void *address, int on_device) {
    pthread_mutex_lock(&lock);
    for (Block **link = &blocks; *link; link = &(*link)->next) {
        Block *block = *link;
        if (block->address == address && block->on_device == on_device) {
            *link = block->next;
            if (on_device) used -= block->size;
            tell(on_device ? "free-device" : "free-host", block->size);
            memset(address, 0x5A, block->size); /* nobody may read it any more */
            free(address);
            free(block);
            pthread_mutex_unlock(&lock);
            return OK;
        }
    }
    pthread_mutex_unlock(&lock);
    return INVALID_VALUE;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    void *found = NULL;
    CUresult code = allocate(&found, size, 1);
    *address = (CUdeviceptr)(uintptr_t)found;
    return code;
}

CUresult cuMemFree_v2(CUdeviceptr address) { return release((void *)(uintptr_t)address, 1); }

CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    (void)flags;
    return allocate(address, size, 0);
}

CUresult cuMemAllocHost_v2(void **address, size_t size) { return allocate(address, size, 0); }

CUresult cuMemFreeHost(void *address) { return release(address, 0); }

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *all) {
    *free_bytes = total - used;
    *all = total;
    return have_context();
}

/* Streams. */

static Stream *stream_of(void *handle) {
    if ((uintptr_t)handle <= 2) return &default_stream; /* null, legacy, per thread */
    for (Stream *s = streams; s; s = s->next)
        if (s == handle) return s;
    return NULL;
}

static void drain(Stream *stream) {
    while (stream->first) {
        Task *task = stream->first;
        stream->first = task->next;
        if (!stream->first) stream->last = NULL;
        if (task->function) task->function(task->to);
        else if (task->event) {
            task->event->ms = now_ms();
            task->event->done = 1;
        } else if (task->from) memcpy(task->to, task->from, task->size);
        else memset(task->to, task->value, task->size);
        free(task);
    }
}

static CUresult enqueue(void *handle, Task given) {
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    if (!stream) {
        pthread_mutex_unlock(&lock);
        return INVALID_HANDLE;
    }
    Task *task = malloc(sizeof *task);
    *task = given;
    task->next = NULL;
    if (stream->last) stream->last->next = task;
    else stream->first = task;
    stream->last = task;
    pthread_mutex_unlock(&lock);
    return OK;
}

CUresult cuStreamCreate(void **handle, unsigned flags) {
    (void)flags;
    CUresult code = have_context();
    if (code) return code;
    pthread_mutex_lock(&lock);
    Stream *stream = calloc(1, sizeof *stream);
    stream->next = streams;
    streams = stream;
    streams_open++;
    *handle = stream;
    pthread_mutex_unlock(&lock);
    return OK;
}

CUresult cuStreamCreateWithPriority(void **handle, unsigned flags, int priority) {
    (void)priority;
    return cuStreamCreate(handle, flags);
}

CUresult cuStreamSynchronize(void *handle) {
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    if (stream) drain(stream);
    tell("synchronize", 0);
    pthread_mutex_unlock(&lock);
    return stream ? OK : INVALID_HANDLE;
}

CUresult cuStreamQuery(void *handle) {
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    CUresult code = !stream ? INVALID_HANDLE : stream->first ? NOT_READY : OK;
    pthread_mutex_unlock(&lock);
    return code;
}

CUresult cuStreamDestroy_v2(void *handle) {
    pthread_mutex_lock(&lock);
    for (Stream **link = &streams; *link; link = &(*link)->next)
        if (*link == handle) {
            Stream *stream = *link;
            drain(stream);
            *link = stream->next;
            free(stream);
            streams_open--;
            pthread_mutex_unlock(&lock);
            return OK;
        }
    pthread_mutex_unlock(&lock);
    return INVALID_HANDLE;
}

CUresult cuCtxSynchronize(void) {
    pthread_mutex_lock(&lock);
    drain(&default_stream);
    for (Stream *s = streams; s; s = s->next) drain(s);
    tell("synchronize", 0);
    pthread_mutex_unlock(&lock);
    return have_context();
}

CUresult cuLaunchHostFunc(void *stream, HostFunction function, void *data) {
    return enqueue(stream, (Task){.function = function, .to = data});
}

static CUresult copy(void *to, const void *from, size_t size, void *stream, int to_device,
                     int from_device) {
    pthread_mutex_lock(&lock);
    int right = (!to_device || lies_in(to, size, 1)) &&
                (!from_device || lies_in(from, size, 1));
    tell(to_device && from_device ? "copy" : to_device ? "copy-to-device" : "copy-to-host", size);
    pthread_mutex_unlock(&lock);
    if (have_context()) return have_context();
    if (!right) return INVALID_VALUE;
    return enqueue(stream, (Task){.to = to, .from = from, .size = size});
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, void *stream) {
    return copy((void *)(uintptr_t)to, from, size, stream, 1, 0);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, void *stream) {
    return copy(to, (void *)(uintptr_t)from, size, stream, 0, 1);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, void *stream) {
    return copy((void *)(uintptr_t)to, (void *)(uintptr_t)from, size, stream, 1, 1);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) {
    CUresult code = cuMemcpyHtoDAsync_v2(to, from, size, NULL);
    return code ? code : cuStreamSynchronize(NULL);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) {
    CUresult code = cuMemcpyDtoHAsync_v2(to, from, size, NULL);
    return code ? code : cuStreamSynchronize(NULL);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, void *stream) {
    return enqueue(stream, (Task){.to = (void *)(uintptr_t)to, .value = value, .size = size});
}

/* Events. */

CUresult cuEventCreate(void **handle, unsigned flags) {
    (void)flags;
    CUresult code = have_context();
    if (code) return code;
    *handle = calloc(1, sizeof(Event));
    __sync_fetch_and_add(&events_open, 1);
    return OK;
}

CUresult cuEventDestroy_v2(void *handle) {
    free(handle);
    __sync_fetch_and_sub(&events_open, 1);
    return OK;
}

CUresult cuEventRecord(void *handle, void *stream) {
    Event *event = handle;
    event->recorded = 1;
    event->done = 0;
    return enqueue(stream, (Task){.event = event});
}

CUresult cuEventQuery(void *handle) { return ((Event *)handle)->done ? OK : NOT_READY; }

CUresult cuEventSynchronize(void *handle) {
    return ((Event *)handle)->done ? OK : cuCtxSynchronize();
}

CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream, (void)flags;
    return cuEventSynchronize(event);
}

CUresult cuEventElapsedTime(float *ms, void *start_event, void *end_event) {
    Event *a = start_event, *b = end_event;
    if (!a->recorded || !b->recorded) return INVALID_HANDLE;
    if (!a->done || !b->done) return NOT_READY;
    *ms = (float)(b->ms - a->ms);
    return OK;
}

CUresult cuEventElapsedTime_v2(float *ms, void *start_event, void *end_event) {
    return cuEventElapsedTime(ms, start_event, end_event);
}

/* Names. */

static const struct {
    CUresult code;
    const char *name, *text;
} NAMES[] = {
    {OK, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
};

CUresult cuGetErrorName(CUresult code, const char **name) {
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (NAMES[i].code == code) return *name = NAMES[i].name, OK;
    *name = NULL;
    return INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult code, const char **text) {
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (NAMES[i].code == code) return *text = NAMES[i].text, OK;
    *text = NULL;
    return INVALID_VALUE;
}

/* The address of a function, by its name without the version that its symbol ends in. */
CUresult cuGetProcAddress_v2(const char *symbol, void **address, int cuda, uint64_t flags,
                             int *status) {
    char name[128];
    (void)cuda, (void)flags;
    Dl_info self;
    dladdr((void *)cuGetProcAddress_v2, &self);
    void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    snprintf(name, sizeof name, "%s_v2", symbol);
    *address = dlsym(library, name);
    if (!*address) *address = dlsym(library, symbol);
    dlclose(library);
    if (status) *status = *address ? 0 : 1;
    return *address ? OK : NOT_FOUND;
}

CUresult cuGetProcAddress(const char *symbol, void **address, int cuda, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, address, cuda, flags, NULL);
}

/* For tests: what has not been given back. */
long fake_device_bytes(void) { return (long)used; }
long fake_blocks(void) {
    long count = 0;
    for (Block *b = blocks; b; b = b->next) count++;
    return count;
}
long fake_streams(void) { return streams_open; }
long fake_events(void) { return events_open; }
long fake_contexts(void) { return retained; }
