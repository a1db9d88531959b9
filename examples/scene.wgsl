// An evening sky over the sea: spheres and a torus, ray-marched, with soft shadows and a reflection.

struct View {
  size: vec2f,
  time: f32,
  samples: f32,
}

@group(0) @binding(0) var<uniform> view: View;

@vertex
fn vertex(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
  // One triangle that covers the picture.
  let corner = vec2f(f32((index << 1u) & 2u), f32(index & 2u));
  return vec4f(corner * 2.0 - 1.0, 0.0, 1.0);
}

fn torus(p: vec3f, radius: f32, thickness: f32) -> f32 {
  return length(vec2f(length(p.xz) - radius, p.y)) - thickness;
}

fn tilt(p: vec3f, angle: f32) -> vec3f {
  let c = cos(angle);
  let s = sin(angle);
  return vec3f(p.x, c * p.y - s * p.z, s * p.y + c * p.z);
}

// Distance and material: 1 the star, 2 the ring, 3 pebbles, 4 the ground.
fn scene(p: vec3f) -> vec2f {
  var hit = vec2f(length(p - vec3f(0.0, 1.1, 0.0)) - 0.8, 1.0);
  let ring = torus(tilt(p - vec3f(0.0, 1.1, 0.0), 0.45), 1.35, 0.09);
  if ring < hit.x { hit = vec2f(ring, 2.0); }
  for (var i = 0; i < 7; i++) {
    let a = f32(i) * 0.8976 + view.time;
    let at = vec3f(2.4 * cos(a), 0.25, 2.4 * sin(a));
    let pebble = length(p - at) - 0.25;
    if pebble < hit.x { hit = vec2f(pebble, 3.0); }
  }
  if p.y < hit.x { hit = vec2f(p.y, 4.0); }
  return hit;
}

fn normal(p: vec3f) -> vec3f {
  let e = vec2f(0.0008, -0.0008);
  return normalize(
    e.xyy * scene(p + e.xyy).x + e.yyx * scene(p + e.yyx).x +
    e.yxy * scene(p + e.yxy).x + e.xxx * scene(p + e.xxx).x
  );
}

fn march(origin: vec3f, direction: vec3f) -> vec2f {
  var t = 0.02;
  for (var i = 0; i < 96; i++) {
    let hit = scene(origin + direction * t);
    if hit.x < 0.0006 * t { return vec2f(t, hit.y); }
    t += hit.x;
    if t > 40.0 { break; }
  }
  return vec2f(-1.0, 0.0);
}

fn shadow(origin: vec3f, direction: vec3f) -> f32 {
  var lit = 1.0;
  var t = 0.03;
  for (var i = 0; i < 40; i++) {
    let d = scene(origin + direction * t).x;
    lit = min(lit, 9.0 * d / t);
    t += clamp(d, 0.02, 0.4);
    if lit < 0.01 || t > 8.0 { break; }
  }
  return clamp(lit, 0.0, 1.0);
}

fn sky(direction: vec3f) -> vec3f {
  let height = clamp(direction.y, 0.0, 1.0);
  var colour = mix(vec3f(0.78, 0.27, 0.08), vec3f(0.015, 0.03, 0.13), pow(height, 0.42));
  let star = max(dot(direction, normalize(vec3f(-0.45, 0.38, -1.0))), 0.0);
  colour += vec3f(1.0, 0.92, 0.75) * (pow(star, 6000.0) * 4.0 + pow(star, 90.0) * 0.25);
  return colour;
}

fn surface(p: vec3f, material: f32) -> vec3f {
  if material < 1.5 { return vec3f(0.86, 0.52, 0.10); }
  if material < 2.5 { return vec3f(0.62, 0.70, 0.86); }
  if material < 3.5 { return vec3f(0.62, 0.08, 0.06); }
  let tile = floor(p.xz);
  let odd = abs((tile.x + tile.y) % 2.0);
  return mix(vec3f(0.03, 0.05, 0.10), vec3f(0.13, 0.16, 0.24), odd);
}

fn shade(p: vec3f, n: vec3f, direction: vec3f, material: f32) -> vec3f {
  let light = normalize(vec3f(-0.55, 0.62, -0.35));
  let lit = max(dot(n, light), 0.0) * shadow(p + n * 0.01, light);
  let half_way = normalize(light - direction);
  let shine = pow(max(dot(n, half_way), 0.0), 48.0) * lit;
  let above = 0.5 + 0.5 * n.y;
  let colour = surface(p, material);
  return colour * (lit * vec3f(1.25, 0.95, 0.70) + above * vec3f(0.10, 0.12, 0.22)) + shine * 0.6;
}

fn picture(pixel: vec2f) -> vec3f {
  let at = (pixel * 2.0 - view.size) / view.size.y;
  var origin = vec3f(0.0, 1.9, 6.2);
  var direction = tilt(normalize(vec3f(at.x, -at.y, -2.0)), -0.17);
  var colour = vec3f(0.0);
  var weight = 1.0;
  for (var bounce = 0; bounce < 2; bounce++) {
    let hit = march(origin, direction);
    if hit.x < 0.0 {
      colour += weight * sky(direction);
      break;
    }
    let p = origin + direction * hit.x;
    let n = normal(p);
    let haze = 1.0 - exp(-0.0005 * hit.x * hit.x * hit.x);
    let local = mix(shade(p, n, direction, hit.y), sky(vec3f(direction.x, 0.02, direction.z)), haze);
    let mirror = 0.12 + 0.4 * pow(1.0 - max(dot(n, -direction), 0.0), 4.0);
    colour += weight * (1.0 - mirror) * local;
    weight *= mirror;
    origin = p + n * 0.01;
    direction = reflect(direction, n);
  }
  return colour;
}

@fragment
fn fragment(@builtin(position) position: vec4f) -> @location(0) vec4f {
  var colour = vec3f(0.0);
  let n = i32(view.samples);
  for (var y = 0; y < n; y++) {
    for (var x = 0; x < n; x++) {
      colour += picture(position.xy - 0.5 + (vec2f(f32(x), f32(y)) + 0.5) / view.samples);
    }
  }
  colour /= view.samples * view.samples;
  // Narkowicz's fit of the ACES film curve, then sRGB's approximate gamma.
  let film = colour * (2.51 * colour + 0.03) / (colour * (2.43 * colour + 0.59) + 0.14);
  return vec4f(pow(clamp(film, vec3f(0.0), vec3f(1.0)), vec3f(0.4545)), 1.0);
}
