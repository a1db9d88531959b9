// Plays what has come, on the browser's sound thread.  Little is kept: what is late is left out.

const FIRST = 2400; // frames to wait for, so that a piece that is late leaves no gap: 50 ms
const MOST = 14400; // frames kept: 300 ms

class Player extends AudioWorkletProcessor {
  #pieces = [];
  #frames = 0; // in all pieces
  #place = 0; // in the first piece, in samples
  #playing = false;

  constructor() {
    super();
    this.port.onmessage = (event) => this.#add(new Int16Array(event.data));
  }

  #add(samples) {
    this.#pieces.push(samples);
    this.#frames += samples.length / 2;
    while (this.#frames > MOST && this.#pieces.length > 1) this.#drop();
  }

  #drop() {
    this.#frames -= (this.#pieces.shift().length - this.#place) / 2;
    this.#place = 0;
  }

  process(_inputs, [[left, right]]) {
    if (!this.#playing && this.#frames < FIRST) return true;
    this.#playing = true;
    for (let i = 0; i < left.length; i += 1) {
      if (this.#pieces.length === 0) {
        this.#playing = false;
        break;
      }
      const piece = this.#pieces[0];
      left[i] = piece[this.#place] / 32768;
      right[i] = piece[this.#place + 1] / 32768;
      this.#place += 2;
      this.#frames -= 1;
      if (this.#place >= piece.length) {
        this.#pieces.shift();
        this.#place = 0;
      }
    }
    return true;
  }
}

registerProcessor("player", Player);
