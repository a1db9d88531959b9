/* An OpenGL ES program that draws beside its X screen: a textured cube from one side after the other.
 *
 *     gl_program PICTURE
 *
 * prints what draws, and writes the last picture: 256 x 256 pixels of four bytes. */
#include <EGL/egl.h>
#include <GLES2/gl2.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SIDE 256
#define FRAMES 30
#define TEXELS 16

static const char vertex_code[] =
    "attribute vec3 place;\n"
    "attribute vec2 where;\n"
    "attribute vec4 tint;\n" /* never enabled: it has one value for all */
    "uniform mat4 turn;\n"
    "varying vec2 at;\n"
    "varying vec4 shade;\n"
    "void main() {\n"
    "    gl_Position = turn * vec4(place, 1.0);\n"
    "    at = where;\n"
    "    shade = tint * (0.5 + 0.25 * (place.x + place.y));\n"
    "}\n";
static const char fragment_code[] =
    "precision highp float;\n"
    "uniform sampler2D picture, other;\n" /* nothing is bound to the other */
    "varying vec2 at;\n"
    "varying vec4 shade;\n"
    "void main() {\n"
    "    gl_FragColor = texture2D(picture, at) * shade + texture2D(other, at) * 0.5;\n"
    "}\n";

static void check(const char *what, int good) {
    if (!good) {
        printf("%s: EGL %#x GL %#x\n", what, eglGetError(), glGetError());
        exit(1);
    }
}

static void start(void) {
    const EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE,
                             EGL_OPENGL_ES2_BIT, EGL_DEPTH_SIZE, 16, EGL_RED_SIZE, 8,
                             EGL_ALPHA_SIZE, 8, EGL_NONE};
    const EGLint version[] = {EGL_CONTEXT_CLIENT_VERSION, 2, EGL_NONE};
    const EGLint size[] = {EGL_WIDTH, SIDE, EGL_HEIGHT, SIDE, EGL_NONE};
    EGLConfig config;
    EGLint count = 0;
    EGLDisplay display = eglGetDisplay(EGL_DEFAULT_DISPLAY);
    check("eglInitialize", eglInitialize(display, NULL, NULL));
    check("eglChooseConfig", eglChooseConfig(display, wanted, &config, 1, &count) && count);
    check("eglBindAPI", eglBindAPI(EGL_OPENGL_ES_API));
    EGLContext context = eglCreateContext(display, config, EGL_NO_CONTEXT, version);
    EGLSurface surface = eglCreatePbufferSurface(display, config, size);
    check("eglMakeCurrent", eglMakeCurrent(display, surface, surface, context));
    printf("%s\n", (const char *)glGetString(GL_RENDERER));
}

static void attach(GLuint program, GLenum kind, const char *code) {
    GLuint shader = glCreateShader(kind);
    GLint good;
    glShaderSource(shader, 1, &code, NULL);
    glCompileShader(shader);
    glGetShaderiv(shader, GL_COMPILE_STATUS, &good);
    check("glCompileShader", good);
    glAttachShader(program, shader);
}

static GLuint make_program(void) {
    GLuint program = glCreateProgram();
    GLint good;
    attach(program, GL_VERTEX_SHADER, vertex_code);
    attach(program, GL_FRAGMENT_SHADER, fragment_code);
    glBindAttribLocation(program, 0, "place");
    glBindAttribLocation(program, 1, "where");
    glBindAttribLocation(program, 2, "tint");
    glLinkProgram(program);
    glGetProgramiv(program, GL_LINK_STATUS, &good);
    check("glLinkProgram", good);
    glUseProgram(program);
    glUniform1i(glGetUniformLocation(program, "other"), 1);
    return program;
}

static void make_texture(void) {
    unsigned char texels[TEXELS][TEXELS][4];
    GLuint texture;
    for (int y = 0; y < TEXELS; y++)
        for (int x = 0; x < TEXELS; x++) {
            texels[y][x][0] = (unsigned char)(x * 255 / (TEXELS - 1));
            texels[y][x][1] = (unsigned char)(y * 255 / (TEXELS - 1));
            texels[y][x][2] = (x ^ y) & 1 ? 255 : 64;
            texels[y][x][3] = 255;
        }
    glGenTextures(1, &texture);
    glBindTexture(GL_TEXTURE_2D, texture);
    glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA, TEXELS, TEXELS, 0, GL_RGBA, GL_UNSIGNED_BYTE, texels);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
}

/* Six faces of two triangles. */
static void make_cube(void) {
    static GLfloat corners[36][5];
    static const GLfloat square[6][2] = {{-1, -1}, {1, -1}, {1, 1}, {-1, -1}, {1, 1}, {-1, 1}};
    for (int face = 0; face < 6; face++)
        for (int i = 0; i < 6; i++) {
            GLfloat *corner = corners[6 * face + i];
            corner[face / 2] = face & 1 ? 0.6f : -0.6f;
            corner[(face / 2 + 1) % 3] = 0.6f * square[i][0];
            corner[(face / 2 + 2) % 3] = 0.6f * square[i][1];
            corner[3] = (square[i][0] + 1) / 2;
            corner[4] = (square[i][1] + 1) / 2;
        }
    GLuint buffer;
    glGenBuffers(1, &buffer);
    glBindBuffer(GL_ARRAY_BUFFER, buffer);
    glBufferData(GL_ARRAY_BUFFER, sizeof corners, corners, GL_STATIC_DRAW);
    glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, 20, (void *)0);
    glVertexAttribPointer(1, 2, GL_FLOAT, GL_FALSE, 20, (void *)12);
    glEnableVertexAttribArray(0);
    glEnableVertexAttribArray(1);
    glVertexAttrib4f(2, 1, 0.75f, 0.5f, 1);
}

static void draw(GLuint program, int frame) {
    GLfloat a = 0.1f * (GLfloat)frame, b = 0.6f;
    const GLfloat turn[16] = {
        cosf(a), sinf(a) * sinf(b), -sinf(a) * cosf(b), 0, 0, cosf(b), sinf(b), 0,
        sinf(a), -cosf(a) * sinf(b), cosf(a) * cosf(b), 0, 0, 0, 0, 1.2f};
    glUniformMatrix4fv(glGetUniformLocation(program, "turn"), 1, GL_FALSE, turn);
    glClearColor(0.1f, 0.2f, 0.3f, 1);
    glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
    glDrawArrays(GL_TRIANGLES, 0, 36);
    glFlush();
}

int main(int count, char **words) {
    static unsigned char picture[SIDE * SIDE * 4];
    FILE *file = count == 2 ? fopen(words[1], "wb") : NULL;
    if (!file)
        return 64;
    start();
    GLuint program = make_program();
    make_texture();
    make_cube();
    glEnable(GL_DEPTH_TEST);
    for (int frame = 0; frame < FRAMES; frame++)
        draw(program, frame);
    glReadPixels(0, 0, SIDE, SIDE, GL_RGBA, GL_UNSIGNED_BYTE, picture);
    check("glReadPixels", glGetError() == GL_NO_ERROR);
    fwrite(picture, 1, sizeof picture, file);
    return fclose(file);
}
