// The engine of this page. `tritpack serve` shows the page with this file as it is; the folder that `tritpack web` writes
// has another one in its place, which runs the model in the browser. http_engine.js says what an engine is.
export { HttpEngine as Engine } from "./http_engine.js";
