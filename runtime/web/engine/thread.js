/** A thread of the pool: an instance of the same module in the same memory, with a stack of its own. It never returns. */
import { imports } from "./native.js";

self.onmessage = ({ data: { module, memory, index, stack } }) => {
  const { exports } = new WebAssembly.Instance(module, imports(module, memory));
  exports.__stack_pointer.value = stack;
  exports.tp_pool_work(index);
};
