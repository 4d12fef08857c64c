export { LocalEngine as Engine } from "./local_engine.js";
