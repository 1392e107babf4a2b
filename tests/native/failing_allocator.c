// Preloaded into Python by tests/engine/test_native_memory.py: while `call_with_failures` runs a
// function, a chosen request for memory or for a thread fails, or all from it on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct _object PyObject;
__attribute__((weak)) extern PyObject *PyObject_CallNoArgs(PyObject *);

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_int active, lasting;
static atomic_long requests, failing;
static _Atomic(void *) failed_caller; // of the first request that failed
static uintptr_t loader;              // where the dynamic loader begins

// The loader ends the process if it has no memory for a thread's variables. The engine sees to it
// that there is some (see prepare_thread), so that these requests do not fail.
static int fails(void *caller) {
    if (!atomic_load(&active) || (uintptr_t)caller - loader < (1 << 19))
        return 0;
    const long number = atomic_fetch_add(&requests, 1) + 1, first = atomic_load(&failing);
    if (number != first && !(number > first && atomic_load(&lasting)))
        return 0;
    if (number == first)
        atomic_store(&failed_caller, caller);
    errno = ENOMEM;
    return 1;
}
#define FAILS fails(__builtin_return_address(0))

void *malloc(size_t size) { return FAILS ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return FAILS ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return FAILS ? NULL : __libc_realloc(old, size); }
void *memalign(size_t unit, size_t size) { return FAILS ? NULL : __libc_memalign(unit, size); }
void *aligned_alloc(size_t unit, size_t size) { return FAILS ? NULL : __libc_memalign(unit, size); }
int posix_memalign(void **to, size_t unit, size_t size) {
    *to = FAILS ? NULL : __libc_memalign(unit, size);
    return *to == NULL ? ENOMEM : 0;
}
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    if (FAILS)
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, size, protection, flags, file, offset);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    return FAILS ? EAGAIN : create(thread, attributes, start, argument);
}

// Call a Python function without arguments; request `number` fails, counted from 1, and the
// following ones too if `lasting_` is not 0.
PyObject *call_with_failures(PyObject *function, long number, int lasting_) {
    Dl_info found;
    if (dladdr((void *)&_r_debug, &found) != 0)
        loader = (uintptr_t)found.dli_fbase;
    dlsym(RTLD_NEXT, "pthread_create");
    atomic_store(&failed_caller, NULL);
    atomic_store(&requests, 0);
    atomic_store(&failing, number);
    atomic_store(&lasting, lasting_);
    atomic_store(&active, 1);
    PyObject *result = PyObject_CallNoArgs(function);
    atomic_store(&active, 0);
    return result;
}

// The number of requests of the last call.
long count_requests(void) { return atomic_load(&requests); }

// The file of the library whose request failed first in the last call; or "".
const char *failed_library(void) {
    Dl_info found;
    void *caller = atomic_load(&failed_caller);
    return caller != NULL && dladdr(caller, &found) != 0 ? found.dli_fname : "";
}
