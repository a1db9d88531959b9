#version 450
#extension GL_EXT_samplerless_texture_functions : require
// Reads whatever descriptor there is, all of them null, then writes to those that can be written to.
layout(local_size_x = 1) in;
layout(std140, set = 0, binding = 0) uniform Uniform { vec4 u[64]; };
layout(std430, set = 0, binding = 1) buffer Storage { uint head; uint pad[3]; uint s[]; };
layout(set = 0, binding = 2) uniform samplerBuffer texels;
layout(set = 0, binding = 3, r32ui) uniform uimageBuffer stored_texels;
layout(set = 0, binding = 4) uniform sampler2D plane;
layout(set = 0, binding = 5) uniform sampler1D line;
layout(set = 0, binding = 6) uniform sampler3D volume;
layout(set = 0, binding = 7) uniform samplerCube cube;
layout(set = 0, binding = 8) uniform sampler2DArray layers;
layout(set = 0, binding = 9) uniform isampler2D whole;
layout(set = 0, binding = 10) uniform usampler3D counts;
layout(set = 0, binding = 11) uniform sampler2DShadow shadow;
layout(set = 0, binding = 12, r32ui) uniform uimage2D stored;
layout(set = 0, binding = 13, rgba8) uniform image3D stored_volume;
layout(set = 0, binding = 14) uniform texture2D alone[2];
layout(set = 0, binding = 15) uniform samplerCubeArray cubes;
layout(set = 0, binding = 16) uniform sampler2DMS samples;
layout(set = 0, binding = 17) uniform sampler1DArray lines;
layout(set = 0, binding = 18) uniform usamplerBuffer whole_texels;
layout(std140, set = 2, binding = 0) uniform Moved { vec4 moved[64]; };
layout(std430, set = 2, binding = 1) buffer MovedStorage { uint moved_storage[]; };
layout(std430, set = 1, binding = 0) buffer Out { uint result[]; };

uint next = 0;
void say(uint value) { result[next++] = value; }
void say(vec4 v) { say(floatBitsToUint(v.x) | floatBitsToUint(v.y) | floatBitsToUint(v.z)); }
void say(uvec4 v) { say(v.x | v.y | v.z); }

void main() {
    say(u[0]);
    say(u[63]);
    say(head);
    say(s[0]);
    say(s[1000000]);
    say(texelFetch(texels, 0));
    say(texelFetch(texels, 100000));
    say(imageLoad(stored_texels, 0));
    say(texture(plane, vec2(0.5)));
    say(texelFetch(plane, ivec2(7, 9), 3));
    say(texture(line, 0.5));
    say(texture(volume, vec3(0.5)));
    say(texture(cube, vec3(0.1, 0.2, 0.9)));
    say(texture(layers, vec3(0.5, 0.5, 3)));
    say(uvec4(texture(whole, vec2(0.5))));
    say(texture(counts, vec3(0.5)));
    say(floatBitsToUint(texture(shadow, vec3(0.5, 0.5, 0.75))));
    say(imageLoad(stored, ivec2(0)));
    say(imageLoad(stored, ivec2(5, 6)));
    say(imageLoad(stored_volume, ivec3(1, 0, 0)));
    say(texelFetch(alone[1], ivec2(0), 0));
    say(texture(cubes, vec4(0.1, 0.9, 0.2, 1)));
    say(texelFetch(samples, ivec2(0), 2));
    say(texture(lines, vec2(0.5, 2)));
    say(texelFetch(whole_texels, 5));
    say(moved[3]);
    say(moved_storage[3]);
    // Nobody's.
    s[1000000] = 5;
    imageStore(stored_texels, 4000000, uvec4(5));
    imageStore(stored, ivec2(40, 40), uvec4(5));
    imageStore(stored_volume, ivec3(1, 2, 3), vec4(1));
    memoryBarrier();
    say(s[1000000]);
    say(imageLoad(stored, ivec2(40, 40)));
    say(u[5]);
    say(texture(plane, vec2(0.5)));
    say(1234);
}
