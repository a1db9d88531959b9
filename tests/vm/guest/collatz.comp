#version 450
layout(local_size_x = 64) in;
layout(set = 0, binding = 0) buffer Numbers { uint number[]; };

void main()
{
    uint value = number[gl_GlobalInvocationID.x], steps = 0;
    while (value > 1 && steps < 1000) {
        value = value % 2 == 0 ? value / 2 : 3 * value + 1;
        steps++;
    }
    number[gl_GlobalInvocationID.x] = steps * 2654435761u + value;
}
