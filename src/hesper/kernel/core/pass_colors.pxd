"""How many colours each subpass has of a render pass with more of them than a list has places for.

There, the lower bits of `Extent.size` are those of a reference to a description with a byte for
each subpass.  A command buffer that records such a pass has a reference, too, so that it finds the
next subpass whatever becomes of the pass.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateRenderPass2, vkCreateRenderPass2_parameters, vkCreateRenderPass_parameters)

from hesper.kernel.core.colors cimport (
    COLOR_PLACES, color_place, colors_elsewhere, list_of, put_colors)
from hesper.kernel.core.objects cimport Extent, Kin, object_kin, object_own
from hesper.kernel.core.platform cimport hesper_load_u64, hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_layouts cimport (
    OF_PASS, RUN, RUN_BITS, Description, Descriptions, PLACE_BITS, Place, description_add,
    description_hold, description_new, description_of)
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.tables cimport hesper_commands


cdef enum:
    NAME_BITS = 48              # of a reference, in a render pass's size
    MOST_NOTED = 255            # colours: more are as little known


cdef inline bint has_colors_elsewhere(uint32_t subpasses) noexcept nogil:
    """Whether a render pass with so many subpasses has more than the list has places for."""
    return subpasses > COLOR_PLACES


cdef inline uint8_t *pass_colors(Description *description) noexcept nogil:
    return <uint8_t *>&description[1]


cdef inline uint32_t new_subpasses(Stream *s) noexcept nogil:
    """How many subpasses the render pass has that the current command makes."""
    if s.command - &hesper_commands[0] == COMMAND_vkCreateRenderPass2:
        return (<vkCreateRenderPass2_parameters *>s.parameters).pCreateInfo.subpassCount
    return (<vkCreateRenderPass_parameters *>s.parameters).pCreateInfo.subpassCount


cdef inline uint32_t new_colors(Stream *s, uint32_t subpass) noexcept nogil:
    if s.command - &hesper_commands[0] == COMMAND_vkCreateRenderPass2:
        return (<vkCreateRenderPass2_parameters *>s.parameters).pCreateInfo.pSubpasses[
            subpass].colorAttachmentCount
    return (<vkCreateRenderPass_parameters *>s.parameters).pCreateInfo.pSubpasses[
        subpass].colorAttachmentCount


cdef inline uint64_t describe_colors(Stream *s) noexcept nogil:
    """A reference to what a new render pass's subpasses have; 0 without memory."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint32_t count = new_subpasses(s)
    cdef Description *made = description_new(all, count, sizeof(uint8_t))
    cdef uint32_t colors
    cdef uint32_t i
    if made == NULL:
        return 0
    made.of = OF_PASS
    for i in range(count):
        colors = new_colors(s, i)
        pass_colors(made)[i] = <uint8_t>(colors if colors < MOST_NOTED else MOST_NOTED)
    return description_add(all, made)


cdef inline void name_colors(Extent *render_pass, uint64_t reference) noexcept nogil:
    """Keep with a new render pass where its colours are."""
    render_pass.size = (render_pass.size >> NAME_BITS << NAME_BITS
                        | reference & ((<uint64_t>1 << NAME_BITS) - 1))


cdef inline Place *named_place(Descriptions *all, uint64_t name) noexcept nogil:
    """The place whose reference a render pass names, or null; the lock is held."""
    cdef uint32_t index = name & ((1 << PLACE_BITS) - 1)
    cdef Place *place
    if index >= all.count:
        return NULL
    place = &all.runs[index >> RUN_BITS][index & (RUN - 1)]
    if place.reference == 0 or (place.reference ^ name) << (64 - NAME_BITS):
        return NULL
    return place if place.description.of == OF_PASS else NULL


cdef inline void begin_named(Stream *s, Extent *recorded, const Extent *render_pass,
                             ) noexcept nogil:
    """The first subpass of such a render pass is begun."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Kin *kin = object_kin(s.first)
    cdef uint64_t had = hesper_load_u64(&kin.description)
    cdef uint64_t reference = 0
    cdef uint32_t colors = 0
    cdef Place *place
    hesper_spin_lock(&all.lock)
    place = named_place(all, render_pass.size & ((<uint64_t>1 << NAME_BITS) - 1))
    # Where another ring has destroyed it meanwhile, there are no colours.
    if place != NULL and (place.reference == had or description_hold(all, place.reference)):
        reference = place.reference
        colors = pass_colors(place.description)[0]
    hesper_spin_unlock(&all.lock)
    if reference != had:
        object_own(&s.core.objects, kin, reference)
    put_colors(recorded, color_place(colors) | colors_elsewhere())


cdef inline bint has_named(const Extent *recorded) noexcept nogil:
    """Whether a command buffer records such a render pass."""
    return list_of(recorded) & colors_elsewhere() != 0


cdef inline void next_named(Stream *s, Extent *recorded, uint32_t left) noexcept nogil:
    """The next subpass is begun, behind which there are so many."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint64_t reference = hesper_load_u64(&object_kin(s.first).description)
    cdef uint32_t colors = 0
    cdef Description *description
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, OF_PASS)
    if description != NULL and left < description.count:
        colors = pass_colors(description)[description.count - 1 - left]
    hesper_spin_unlock(&all.lock)
    put_colors(recorded, color_place(colors) | colors_elsewhere())
