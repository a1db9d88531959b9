/* What is known of memory, buffers and images: a table by kind and handle. */
#include "driver.h"

#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 4096

static struct object *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct object **find(enum object_kind kind, uint64_t handle) {
    struct object **at = &buckets[(handle >> 4 ^ handle >> 16) % BUCKETS];
    while (*at && ((*at)->handle != handle || (*at)->kind != kind))
        at = &(*at)->next;
    return at;
}

void add_object(const struct object *object) {
    struct object *added = malloc(sizeof *added);
    if (!added)
        broken("of this driver", "no memory for a note of an object");
    *added = *object;
    pthread_mutex_lock(&lock);
    struct object **at = find(object->kind, object->handle);
    added->next = *at;
    *at = added;
    pthread_mutex_unlock(&lock);
}

bool get_object(enum object_kind kind, uint64_t handle, struct object *copy) {
    pthread_mutex_lock(&lock);
    struct object *found = *find(kind, handle);
    if (found)
        *copy = *found;
    pthread_mutex_unlock(&lock);
    return found != NULL;
}

void set_mapped(uint64_t memory, bool mapped) {
    pthread_mutex_lock(&lock);
    struct object *found = *find(MEMORY, memory);
    if (found)
        found->mapped = mapped;
    pthread_mutex_unlock(&lock);
}

bool take_object(enum object_kind kind, uint64_t handle, struct object *copy) {
    pthread_mutex_lock(&lock);
    struct object **at = find(kind, handle), *found = *at;
    if (found) {
        *copy = *found;
        *at = found->next;
        free(found);
    }
    pthread_mutex_unlock(&lock);
    return found != NULL;
}
