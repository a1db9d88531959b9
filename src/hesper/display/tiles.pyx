"""What touches every pixel of a picture; `tiles.pyi`."""

from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    TILE = 64                   # as in geometry.py
    COLOURS = 256               # of a palette
    SLOTS = 1024                # of the table that finds a colour's place in it
    SAMPLE_STEP = 31
    SAMPLE_COLOURS = 32
    SAMPLE_SLOTS = 128

cdef struct Channels:
    int is_xrgb
    int red
    int green
    int blue


def update(const uint32_t[:, :] source, shifts, uint32_t[:, ::1] kept, int x, int y,
           uint8_t[:, ::1] changed):
    cdef Channels channels
    cdef int width = <int>source.shape[1], height = <int>source.shape[0]
    if x % TILE or y % TILE or x < 0 or y < 0:
        raise ValueError("tiles begin at multiples of their edge")
    if x + width > kept.shape[1] or y + height > kept.shape[0]:
        raise ValueError("tiles outside the picture")
    if (x + width + TILE - 1) // TILE > changed.shape[1] or (
            y + height + TILE - 1) // TILE > changed.shape[0]:
        raise ValueError("more tiles than there are flags for")
    if width and height and source.strides[1] != 4:
        raise ValueError("pixels that do not lie side by side")
    channels.is_xrgb = shifts is None
    channels.red, channels.green, channels.blue = (16, 8, 0) if shifts is None else shifts
    with nogil:
        update_tiles(source, channels, kept, x, y, changed)


cdef void update_tiles(const uint32_t[:, :] source, Channels channels, uint32_t[:, ::1] kept,
                       int x, int y, uint8_t[:, ::1] changed) noexcept nogil:
    """A guest may write while this reads: what is compared is what is kept, and read once."""
    cdef uint32_t line[TILE]
    cdef const uint32_t *pixels
    cdef uint32_t *old
    cdef int width = <int>source.shape[1], height = <int>source.shape[0]
    cdef int left, row, count
    for row in range(height):
        for left from 0 <= left < width by TILE:
            count = min(TILE, width - left)
            pixels = <const uint32_t *>(<const char *>&source[row, left])
            load(line, pixels, count, channels)
            old = &kept[y + row, x + left]
            if memcmp(line, old, count * 4) != 0:
                memcpy(old, line, count * 4)
                changed[(y + row) // TILE, (x + left) // TILE] = 1


cdef inline void load(uint32_t *line, const uint32_t *pixels, int count,
                      Channels channels) noexcept nogil:
    cdef int column
    cdef uint32_t pixel
    if channels.is_xrgb:
        for column in range(count):
            line[column] = pixels[column] & 0x00FFFFFF
        return
    for column in range(count):
        pixel = pixels[column]
        line[column] = ((pixel >> channels.red & 255) << 16 | (pixel >> channels.green & 255) << 8
                        | (pixel >> channels.blue & 255))


def to_i420(const uint32_t[:, :] pixels, uint8_t[::1] planes, int width, int height, int x, int y):
    cdef int columns = <int>pixels.shape[1], rows = <int>pixels.shape[0]
    if (width | height | x | y | columns | rows) & 1:
        raise ValueError("pictures of 4:2:0 have even edges")
    if x < 0 or y < 0 or x + columns > width or y + rows > height:
        raise ValueError("pixels outside the picture")
    if planes.shape[0] != width * height * 3 // 2:
        raise ValueError("planes of another size")
    if columns == 0 or rows == 0:
        return
    if pixels.strides[1] != 4:
        raise ValueError("pixels that do not lie side by side")
    with nogil:
        convert(pixels, &planes[0], width, height, x, y)


cdef void convert(const uint32_t[:, :] pixels, uint8_t *planes, int width, int height,
                  int x, int y) noexcept nogil:
    cdef int row, columns = <int>pixels.shape[1]
    cdef const uint32_t *upper
    cdef const uint32_t *lower
    cdef uint8_t *luma
    cdef Py_ssize_t chroma
    cdef uint8_t *blue = planes + <Py_ssize_t>width * height
    cdef uint8_t *red = blue + <Py_ssize_t>(width // 2) * (height // 2)
    for row in range(0, <int>pixels.shape[0], 2):
        upper = <const uint32_t *>&pixels[row, 0]
        lower = <const uint32_t *>&pixels[row + 1, 0]
        luma = planes + <Py_ssize_t>(y + row) * width + x
        to_luma(upper, luma, columns)
        to_luma(lower, luma + width, columns)
        chroma = <Py_ssize_t>((y + row) // 2) * (width // 2) + x // 2
        to_chroma(upper, lower, blue + chroma, red + chroma, columns // 2)


cdef inline void to_luma(const uint32_t *pixels, uint8_t *luma, int count) noexcept nogil:
    cdef int column
    cdef uint32_t pixel
    for column in range(count):
        pixel = pixels[column]
        luma[column] = <uint8_t>(
            ((pixel >> 16 & 255) * 66 + (pixel >> 8 & 255) * 129 + (pixel & 255) * 25
             + (16 << 8) + 128) >> 8)


cdef inline void to_chroma(const uint32_t *upper, const uint32_t *lower, uint8_t *blue_out,
                           uint8_t *red_out, int count) noexcept nogil:
    """Of the mean of four pixels; red and blue are added up in one word, as they do not meet."""
    cdef int column
    cdef uint32_t one, two, three, four, sums
    cdef int32_t red, green, blue
    for column in range(count):
        one, two = upper[2 * column], upper[2 * column + 1]
        three, four = lower[2 * column], lower[2 * column + 1]
        sums = ((one & 0xFF00FF) + (two & 0xFF00FF) + (three & 0xFF00FF) + (four & 0xFF00FF))
        red, blue = <int32_t>(sums >> 16), <int32_t>(sums & 0xFFFF)
        green = <int32_t>((one >> 8 & 255) + (two >> 8 & 255) + (three >> 8 & 255)
                          + (four >> 8 & 255))
        blue_out[column] = <uint8_t>(
            (-38 * red - 74 * green + 112 * blue + (128 << 10) + 512) >> 10)
        red_out[column] = <uint8_t>(
            (112 * red - 94 * green - 18 * blue + (128 << 10) + 512) >> 10)


def sort_tiles(const uint32_t[:, :] pixels, double busy, uint8_t[:, ::1] kinds):
    cdef int width = <int>pixels.shape[1], height = <int>pixels.shape[0]
    cdef int row, column
    if (kinds.shape[0] != (height + TILE - 1) // TILE
            or kinds.shape[1] != (width + TILE - 1) // TILE):
        raise ValueError("kinds of another number of tiles")
    if width and height and pixels.strides[1] != 4:
        raise ValueError("pixels that do not lie side by side")
    with nogil:
        for row in range(<int>kinds.shape[0]):
            for column in range(<int>kinds.shape[1]):
                kinds[row, column] = kind_of(
                    pixels, column * TILE, row * TILE,
                    min(TILE, width - column * TILE), min(TILE, height - row * TILE), busy)


cdef uint8_t kind_of(const uint32_t[:, :] pixels, int x, int y, int width, int height,
                     double busy) noexcept nogil:
    """0: one colour; 1: few, or text; 2: a picture."""
    cdef const uint32_t *line
    cdef int row, column, changes = 0, differs = 0
    cdef uint32_t first = pixels[y, x]
    for row in range(height):
        line = <const uint32_t *>&pixels[y + row, x]
        differs |= line[0] != first
        for column in range(1, width):
            changes += line[column] != line[column - 1]
    if changes == 0 and not differs:
        return 0
    if changes <= busy * width * height:
        return 1
    return 2 if has_many_colours(pixels, x, y, width, height) else 1


cdef bint has_many_colours(const uint32_t[:, :] pixels, int x, int y, int width,
                           int height) noexcept nogil:
    """Whether every 31st pixel of a tile shows more colours than palettes are good for."""
    cdef uint32_t seen[SAMPLE_SLOTS]
    cdef uint8_t used[SAMPLE_SLOTS]
    cdef int place, count = 0, slot
    cdef uint32_t colour
    memset(used, 0, sizeof(used))
    for place from 0 <= place < width * height by SAMPLE_STEP:
        colour = pixels[y + place // width, x + place % width]
        slot = <int>(colour * 2654435761u >> 25) & (SAMPLE_SLOTS - 1)
        while used[slot] and seen[slot] != colour:
            slot = (slot + 1) & (SAMPLE_SLOTS - 1)
        if not used[slot]:
            used[slot] = 1
            seen[slot] = colour
            count += 1
            if count > SAMPLE_COLOURS:
                return True
    return False


def find_palette(const uint32_t[:, :] pixels, uint32_t[::1] colours, uint8_t[:, ::1] indices):
    cdef int width = <int>pixels.shape[1], height = <int>pixels.shape[0]
    cdef int count
    if colours.shape[0] < COLOURS or indices.shape[0] != height or indices.shape[1] != width:
        raise ValueError("too little room for a palette")
    if width == 0 or height == 0:
        return 0
    if pixels.strides[1] != 4:
        raise ValueError("pixels that do not lie side by side")
    with nogil:
        count = index_colours(pixels, &colours[0], indices)
    return count


cdef int index_colours(const uint32_t[:, :] pixels, uint32_t *colours,
                       uint8_t[:, ::1] indices) noexcept nogil:
    cdef int16_t table[SLOTS]
    cdef const uint32_t *line
    cdef uint8_t *out
    cdef int row, column, slot, count = 0
    cdef uint32_t colour, last = 0
    cdef uint8_t index = 0
    for slot in range(SLOTS):
        table[slot] = -1
    for row in range(<int>pixels.shape[0]):
        line = <const uint32_t *>&pixels[row, 0]
        out = &indices[row, 0]
        for column in range(<int>pixels.shape[1]):
            colour = line[column]
            if colour != last or count == 0:
                slot = <int>(colour * 2654435761u >> 22) & (SLOTS - 1)
                while table[slot] >= 0 and colours[table[slot]] != colour:
                    slot = (slot + 1) & (SLOTS - 1)
                if table[slot] < 0:
                    if count == COLOURS:
                        return -1
                    table[slot] = <int16_t>count
                    colours[count] = colour
                    count += 1
                index = <uint8_t>table[slot]
                last = colour
            out[column] = index
    return count
