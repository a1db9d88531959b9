#version 450
layout(push_constant) uniform Turn { float angle; };
layout(location = 0) out vec3 colour;

void main()
{
    float corner = angle + 2.0943951 * gl_VertexIndex;
    gl_Position = vec4(0.9 * cos(corner), 0.9 * sin(corner), 0.0, 1.0);
    colour = vec3(gl_VertexIndex == 0, gl_VertexIndex == 1, gl_VertexIndex == 2);
}
