/* What the two halves of the driver share: driver.c, by hand, and what generate.py makes. */
#ifndef HESPER_FUZZ_DRIVER_H
#define HESPER_FUZZ_DRIVER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vulkan_core.h"

/* Read every byte, so that the address sanitizer sees them read. */
void look_at(const void *data, uint64_t size);

/* Write every byte: whatever the guest was promised room for. */
void fill_in(void *data, uint64_t size);

/* A handle that no other object has. */
uint64_t fresh_handle(void);

/* What a command that can fail returns: VK_SUCCESS, or the fault that is due (`fuzz_fault`). */
VkResult outcome(void);

/* Look at the structs of a pNext chain, each by its sType. */
void look_at_chain(const void *next);

typedef struct {
    const char *name;
    PFN_vkVoidFunction function;
} Command;

/* One for each command of the registry. */
extern const Command generated_commands[];
extern const size_t generated_command_count;

#endif
