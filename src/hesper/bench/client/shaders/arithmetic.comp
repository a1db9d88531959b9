#version 450
// Keeps a device's arithmetic busy: 16 multiply-adds a step and invocation, as many steps as pushed.
layout(local_size_x = 64) in;

layout(push_constant) uniform Pushed {
    uvec4 steps[4];
} pushed;

layout(set = 0, binding = 0) buffer Data {
    uint element[];
} data;

void main() {
    uint i = gl_GlobalInvocationID.x;
    vec4 a = vec4(float(i & 255u) * 0.001);
    vec4 b = a + 0.1;
    vec4 c = a + 0.2;
    vec4 d = a + 0.3;
    for (uint step = 0u; step < pushed.steps[0].x; step++) {
        a = fma(a, vec4(0.9999), b);
        b = fma(b, vec4(0.9998), c);
        c = fma(c, vec4(0.9997), d);
        d = fma(d, vec4(0.9996), vec4(0.0001));
    }
    // The sum decides about a write that never happens, so that no step can be left out.
    if (dot(a + b + c + d, vec4(1.0)) == 1.2345678e30) {
        data.element[i & 1023u] = 1u;
    }
}
