// The guest's sound: samples from a WebSocket, through a worklet, to the loudspeakers.

const RATE = 48000; // as hesper.display.sound has it

export class Sound {
  #context = null;
  #socket = null;

  constructor(url, protocols, ended) {
    this.url = url;
    this.protocols = protocols;
    this.ended = ended;
  }

  get isOn() {
    return this.#socket !== null;
  }

  // By a click of the user's: browsers play nothing before.
  async start() {
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.#context = context;
    await context.audioWorklet.addModule("/page/sound-worklet.js");
    const player = new AudioWorkletNode(context, "player", {
      numberOfInputs: 0,
      outputChannelCount: [2],
    });
    player.connect(context.destination);
    if (context !== this.#context) return;
    const socket = new WebSocket(this.url, this.protocols);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.addEventListener("message", (event) => {
      player.port.postMessage(event.data, [event.data]);
    });
    socket.addEventListener("close", () => {
      if (socket !== this.#socket) return;
      this.stop();
      this.ended();
    });
    await context.resume();
  }

  stop() {
    const [socket, context] = [this.#socket, this.#context];
    this.#socket = this.#context = null;
    socket?.close();
    context?.close();
  }
}
