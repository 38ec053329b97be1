/** The same call for other tools, ready to run. Credentials are not in it: it reads them from environment variables. */

const KEY = "COMMERCE_API_KEY";
const TOKEN = "COMMERCE_TOKEN";
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
const HEALTH = "grpc.health.v1.Health";

/**
 * Return the snippets of a call.
 *
 * @param {object} call
 * @param {object} call.method - as in the schema.
 * @param {object} call.request - as JSON.
 * @param {{grpcPort: number, tls: boolean}} call.server - of server.json.
 * @param {URL} call.base - the address of the server, ending in `/`.
 * @param {{kind: string, onBehalfOf: string}} call.credentials - which kind is used, and for whom.
 * @returns {{id: string, label: string, text: string, note?: string}[]}
 */
export function snippets(call) {
  const found = [{ id: "curl", label: "curl", text: curl(call) }];
  found.push({ id: "grpcurl", label: "grpcurl", text: grpcurl(call) });
  if (call.method.service !== HEALTH) {
    call.method.kind === "unary" && found.unshift(commercectl(call));
    found.push({
      id: "python",
      label: "Python",
      text: call.method.kind === "unary" ? python(call) : pythonStream(call),
    });
  }
  return found;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function address({ server, base }) {
  return `${base.hostname}:${server.grpcPort || 50051}`;
}

function headers({ credentials }) {
  const found = { key: [`"x-api-key: $${KEY}"`], token: [`"authorization: Bearer $${TOKEN}"`] }[credentials.kind] ?? [];
  return credentials.onBehalfOf ? [...found, quoted(`x-on-behalf-of: ${credentials.onBehalfOf}`)] : found;
}

function lines(parts) {
  return parts.filter(Boolean).join(" \\\n  ");
}

function curl(call) {
  return lines([
    `curl -sS${call.method.kind === "unary" ? "" : "N"} ${quoted(new URL(call.method.path, call.base).href)}`,
    "-H 'content-type: application/json'",
    ...headers(call).map((header) => `-H ${header}`),
    `-d ${quoted(JSON.stringify(call.request))}`,
  ]);
}

function grpcurl(call) {
  return lines([
    `grpcurl${call.server.tls ? "" : " -plaintext"}`,
    ...headers(call).map((header) => `-H ${header}`),
    `-d ${quoted(JSON.stringify(call.request))}`,
    `${address(call)} ${call.method.path}`,
  ]);
}

function commercectl(call) {
  const { credentials, server, base } = call;
  const key = credentials.kind === "key" ? `COMMERCECTL_API_KEY="$${KEY}" ` : "";
  const user = credentials.onBehalfOf && ` --on-behalf-of ${quoted(credentials.onBehalfOf)}`;
  const text = lines([
    `${key}commercectl --address ${address(call)}${user}`,
    `call ${call.method.name} ${quoted(JSON.stringify(call.request))}`,
  ]);
  const options = [
    credentials.kind === "token" && "--token-file FILE",
    server.tls === LOOPBACK.test(base.hostname) && (server.tls ? "--tls" : "--plaintext"),
  ].filter(Boolean);
  const note = options.length ? `It needs a context: commercectl context add NAME ADDRESS ${options.join(" ")}.` : "";
  return { id: "commercectl", label: "commercectl", text, note };
}

function python(call) {
  const constant = constantName(call.method.name);
  return [
    ...(call.credentials.kind === "none" ? [] : ["import os", ""]),
    "from google.protobuf.json_format import ParseDict",
    "",
    "from commerce.client import Client",
    `from commerce.client.generated.methods import ${constant}`,
    "",
    `request = ParseDict(${literal(call.request)}, ${constant}.request())`,
    `with Client(${[JSON.stringify(address(call)), ...clientArguments(call)].join(", ")}) as client:`,
    `    print(client.call(${constant}, request))`,
    "",
  ].join("\n");
}

function clientArguments({ server, base, credentials }) {
  const isLocal = LOOPBACK.test(base.hostname);
  return [
    server.tls === isLocal && `tls=${server.tls ? "True" : "False"}`,
    credentials.kind === "key" && `api_key=os.environ["${KEY}"]`,
    credentials.kind === "token" && `token=os.environ["${TOKEN}"]`,
    credentials.onBehalfOf && `on_behalf_of=${JSON.stringify(credentials.onBehalfOf)}`,
  ].filter(Boolean);
}

function pythonStream(call) {
  const { method, credentials, server } = call;
  const [folder, service] = [
    method.service.slice(0, method.service.lastIndexOf(".")),
    method.service.split(".").at(-1),
  ];
  const module = service.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase();
  const request = method.input.slice(method.input.lastIndexOf(".") + 1);
  const metadata = [
    credentials.kind === "key" && `("x-api-key", os.environ["${KEY}"])`,
    credentials.kind === "token" && `("authorization", "Bearer " + os.environ["${TOKEN}"])`,
    credentials.onBehalfOf && `("x-on-behalf-of", ${JSON.stringify(credentials.onBehalfOf)})`,
  ].filter(Boolean);
  const target = JSON.stringify(address(call));
  const channel = server.tls
    ? `grpc.secure_channel(${target}, grpc.ssl_channel_credentials())`
    : `grpc.insecure_channel(${target})`;
  return [
    ...(credentials.kind === "none" ? [] : ["import os", ""]),
    "import grpc",
    "from google.protobuf.json_format import ParseDict",
    "",
    `from ${folder} import ${module}_pb2, ${module}_pb2_grpc`,
    "",
    `request = ParseDict(${literal(call.request)}, ${module}_pb2.${request}())`,
    `with ${channel} as channel:`,
    `    stub = ${module}_pb2_grpc.${service}Stub(channel)`,
    `    for response in stub.${method.name}(request${metadata.length ? `, metadata=[${metadata.join(", ")}]` : ""}):`,
    "        print(response, flush=True)",
    "",
  ].join("\n");
}

function constantName(name) {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** Return JSON as a literal of Python. */
function literal(value, indent = "") {
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    return value.length
      ? `[\n${value.map((element) => `${inner}${literal(element, inner)},\n`).join("")}${indent}]`
      : "[]";
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    return entries.length
      ? `{\n${entries.map(([key, element]) => `${inner}${JSON.stringify(key)}: ${literal(element, inner)},\n`).join("")}${indent}}`
      : "{}";
  }
  if (value === null) {
    return "None";
  }
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
}
