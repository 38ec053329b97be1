/** Documents that the server serves beside the modules of the console. */

/** Return the content of a document in JSON. */
export async function fetchJson(name) {
  const response = await fetch(name, { credentials: "omit" });
  if (!response.ok) {
    throw new Error(`${name}: HTTP ${response.status}`);
  }
  return response.json();
}

/** Return a function that loads something when it is called first, and returns the same later. */
export function once(load) {
  let loading = null;
  return () => {
    loading ??= load().catch((error) => {
      // The next call tries again.
      loading = null;
      throw error;
    });
    return loading;
  };
}
