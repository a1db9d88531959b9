/* What a Python's headers believe of the system that they are compiled for: sizes, by which layouts of
 * their structs go, and which functions may be looked for. */
#include <Python.h>

#include <pthread.h>
#include <stddef.h>
#include <time.h>
#include <wchar.h>

_Static_assert(SIZEOF_SHORT == sizeof(short), "short");
_Static_assert(SIZEOF_INT == sizeof(int), "int");
_Static_assert(SIZEOF_LONG == sizeof(long), "long");
_Static_assert(SIZEOF_LONG_LONG == sizeof(long long), "long long");
_Static_assert(SIZEOF_VOID_P == sizeof(void *), "pointers");
_Static_assert(SIZEOF_SIZE_T == sizeof(size_t), "size_t");
_Static_assert(SIZEOF_OFF_T == sizeof(off_t), "off_t");
_Static_assert(SIZEOF_TIME_T == sizeof(time_t), "time_t");
_Static_assert(SIZEOF_PID_T == sizeof(pid_t), "pid_t");
_Static_assert(SIZEOF_WCHAR_T == sizeof(wchar_t), "wchar_t");
_Static_assert(SIZEOF_DOUBLE == sizeof(double), "double");
_Static_assert(SIZEOF_PTHREAD_T == sizeof(pthread_t), "pthread_t");
_Static_assert(SIZEOF_PTHREAD_KEY_T == sizeof(pthread_key_t), "pthread_key_t");
_Static_assert(SIZEOF_UINTPTR_T == sizeof(uintptr_t), "uintptr_t");
_Static_assert(ALIGNOF_LONG == _Alignof(long), "alignment of long");
_Static_assert(ALIGNOF_SIZE_T == _Alignof(size_t), "alignment of size_t");
