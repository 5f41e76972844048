// Timers by name: a new one takes the place of the old one of its name, and all can be stopped at once.

export class Timers {
  #running = new Map();

  after(name, ms, run) {
    this.stop(name);
    this.#running.set(name, setTimeout(() => {
      this.#running.delete(name);
      run();
    }, ms));
  }

  every(name, ms, run) {
    this.stop(name);
    this.#running.set(name, setInterval(run, ms));
  }

  stop(name) {
    clearTimeout(this.#running.get(name)); // clears intervals too
    this.#running.delete(name);
  }

  stopAll() {
    for (const name of [...this.#running.keys()]) this.stop(name);
  }
}
