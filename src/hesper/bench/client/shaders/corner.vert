#version 450
// A triangle over the whole target, moved by what is pushed; made of the vertex's number alone.
layout(push_constant) uniform Pushed {
    vec4 moved[4];
} pushed;

void main() {
    vec2 corner = vec2(gl_VertexIndex & 1, gl_VertexIndex >> 1);
    gl_Position = vec4(corner * 4.0 - 1.0, 0.0, 1.0) + pushed.moved[0];
}
