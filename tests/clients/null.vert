#version 450
// Writes what a vertex has of a null buffer, and its index.
layout(location = 0) in vec4 found;
layout(std430, set = 0, binding = 0) buffer Out { uint result[]; };
void main() {
    uint at = 4 * gl_InstanceIndex;
    result[at] = floatBitsToUint(found.x) | floatBitsToUint(found.y);
    result[at + 1] = gl_VertexIndex;
    result[at + 2] = 1234;
    gl_Position = vec4(0);
}
