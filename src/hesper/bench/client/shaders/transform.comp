#version 450
// Proves that a driver works: every element times three plus a number that is pushed.
layout(local_size_x = 64) in;

layout(push_constant) uniform Pushed {
    uvec4 added[4];
} pushed;

layout(set = 0, binding = 0) buffer Data {
    uint element[];
} data;

void main() {
    uint i = gl_GlobalInvocationID.x;
    data.element[i] = data.element[i] * 3u + pushed.added[0].x;
}
