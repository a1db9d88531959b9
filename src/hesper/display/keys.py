"""Keys by their four names: Linux's code, QEMU's `QKeyCode`, the PC/XT scan code, X11 keysyms.

Sources: Linux `input-event-codes.h`, QEMU `qapi/ui.json`, X11 `keysymdef.h`; XT scan codes with bit
7 in place of an `E0` prefix, as RFB's QEMU key event and QEMU's key numbers have them.

Keysyms name what a key types, so going from one to a key assumes a layout: a US keyboard.  It is
used for viewers that send no scan code (`rfb.keyboard`).
"""

from __future__ import annotations

# Linux code, QKeyCode, XT code, then what the key types: a character, or a keysym in hexadecimal.
_TABLE = """
1   esc            01  ff1b
2   1              02  1 !
3   2              03  2 @
4   3              04  3 #
5   4              05  4 $
6   5              06  5 %
7   6              07  6 ^
8   7              08  7 &
9   8              09  8 *
10  9              0a  9 (
11  0              0b  0 )
12  minus          0c  - _
13  equal          0d  = +
14  backspace      0e  ff08
15  tab            0f  ff09 fe20
16  q              10  q Q
17  w              11  w W
18  e              12  e E
19  r              13  r R
20  t              14  t T
21  y              15  y Y
22  u              16  u U
23  i              17  i I
24  o              18  o O
25  p              19  p P
26  bracket_left   1a  [ {
27  bracket_right  1b  ] }
28  ret            1c  ff0d
29  ctrl           1d  ffe3
30  a              1e  a A
31  s              1f  s S
32  d              20  d D
33  f              21  f F
34  g              22  g G
35  h              23  h H
36  j              24  j J
37  k              25  k K
38  l              26  l L
39  semicolon      27  ; :
40  apostrophe     28  ' "
41  grave_accent   29  ` ~
42  shift          2a  ffe1
43  backslash      2b  \\ |
44  z              2c  z Z
45  x              2d  x X
46  c              2e  c C
47  v              2f  v V
48  b              30  b B
49  n              31  n N
50  m              32  m M
51  comma          33  , <
52  dot            34  . >
53  slash          35  / ?
54  shift_r        36  ffe2
55  kp_multiply    37  ffaa
56  alt            38  ffe9 ffe7
57  spc            39  0020
58  caps_lock      3a  ffe5
59  f1             3b  ffbe
60  f2             3c  ffbf
61  f3             3d  ffc0
62  f4             3e  ffc1
63  f5             3f  ffc2
64  f6             40  ffc3
65  f7             41  ffc4
66  f8             42  ffc5
67  f9             43  ffc6
68  f10            44  ffc7
69  num_lock       45  ff7f
70  scroll_lock    46  ff14
71  kp_7           47  ffb7 ff95
72  kp_8           48  ffb8 ff97
73  kp_9           49  ffb9 ff9a
74  kp_subtract    4a  ffad
75  kp_4           4b  ffb4 ff96
76  kp_5           4c  ffb5 ff9d
77  kp_6           4d  ffb6 ff98
78  kp_add         4e  ffab
79  kp_1           4f  ffb1 ff9c
80  kp_2           50  ffb2 ff99
81  kp_3           51  ffb3 ff9b
82  kp_0           52  ffb0 ff9e
83  kp_decimal     53  ffae ff9f
86  less           56
87  f11            57  ffc8
88  f12            58  ffc9
89  ro             73
91  hiragana       77  ff25
92  henkan         79  ff23
93  katakanahiragana 70 ff27
94  muhenkan       7b  ff22
96  kp_enter       9c  ff8d
97  ctrl_r         9d  ffe4
98  kp_divide      b5  ffaf
99  sysrq          54  ff15
100 alt_r          b8  ffea ffe8 fe03 ff7e
102 home           c7  ff50
103 up             c8  ff52
104 pgup           c9  ff55
105 left           cb  ff51
106 right          cd  ff53
107 end            cf  ff57
108 down           d0  ff54
109 pgdn           d1  ff56
110 insert         d2  ff63
111 delete         d3  ffff
113 audiomute      a0  1008ff12
114 volumedown     ae  1008ff11
115 volumeup       b0  1008ff13
116 power          de  1008ff2a
117 kp_equals      59  ffbd
119 pause          c6  ff13 ff6b
121 kp_comma       7e  ffac
122 lang1          72  ff31
123 lang2          71  ff34
124 yen            7d  a5
125 meta_l         db  ffeb
126 meta_r         dc  ffec
127 compose        dd  ff67
128 stop           e8  ff69
129 again          85  ff66
130 props          86
131 undo           87  ff65
133 copy           f8  1008ff57
134 open           64  1008ff6b
135 paste          65  1008ff6d
136 find           c1  ff68
137 cut            bc  1008ff58
138 help           f5  ff6a
140 calculator     a1  1008ff1d
142 sleep          df  1008ff2f
143 wake           e3  1008ff2b
155 mail           ec  1008ff19
156 ac_bookmarks   e6  1008ff30
157 computer       eb  1008ff33
158 ac_back        ea  1008ff26
159 ac_forward     e9  1008ff27
163 audionext      99  1008ff17
164 audioplay      a2  1008ff14
165 audioprev      90  1008ff16
166 audiostop      a4  1008ff15
172 ac_home        b2  1008ff18
173 ac_refresh     e7  1008ff29
183 f13            5d  ffca
184 f14            5e  ffcb
185 f15            5f  ffcc
186 f16            55  ffcd
187 f17            83  ffce
188 f18            f7  ffcf
189 f19            84  ffd0
190 f20            5a  ffd1
191 f21            74  ffd2
192 f22            f9  ffd3
193 f23            6d  ffd4
194 f24            6f  ffd5
210 print          b7  ff61
226 mediaselect    ed  1008ff32
"""


def _keysym(text: str) -> int:
    return ord(text) if len(text) == 1 else int(text, 16)


_ROWS = [row.split() for row in _TABLE.strip().splitlines()]

QCODE_OF: dict[int, str] = {int(row[0]): row[1] for row in _ROWS}
"""QEMU's name of a key by Linux's code."""

CODE_OF_SCANCODE: dict[int, int] = {int(row[2], 16): int(row[0]) for row in _ROWS}
"""Linux's code by XT scan code."""

CODE_OF_KEYSYM: dict[int, int] = {_keysym(text): int(row[0]) for row in _ROWS for text in row[3:]}
"""Linux's code by X11 keysym, on a US keyboard."""

SHIFTED: dict[int, bool] = {
    ord(text): column == 1 for row in _ROWS for column, text in enumerate(row[3:]) if len(text) == 1
} | {ord(" "): False}
"""Keysyms of characters: whether a US keyboard types them with shift."""

_UNICODE = 0x0100_0000
"""Keysyms from here on are Unicode characters (X11 `keysymdef.h`); Latin-1 has older ones, too."""


def plain_keysym(keysym: int) -> int:
    """The older of two keysyms that name the same character."""
    return keysym - _UNICODE if _UNICODE + 0x20 <= keysym <= _UNICODE + 0xFF else keysym


def key_code(keysym: int, scancode: int = 0) -> int | None:
    """Return Linux's code of the key a viewer means; None when there is no such key.

    A scan code says which key it is; a keysym only what it types, and is used when there is no
    scan code.
    """
    if scancode:
        return CODE_OF_SCANCODE.get(scancode)
    return CODE_OF_KEYSYM.get(keysym)
