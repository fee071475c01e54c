// The tool `people`: asks fleet-agent, which watches the organisation's directory, over loopback HTTP.
// The directory is not in the workspace on purpose: a hire changes it for everybody and must restart nobody.

const ACTIONS = ["search", "find", "department", "team", "title", "level", "manager", "reports", "chain", "list"];

const PARAMETERS = {
  type: "object",
  additionalProperties: false,
  required: ["action"],
  properties: {
    action: {
      type: "string",
      enum: ACTIONS,
      description:
        "search: words in any field; find: one person by id, name or Matrix id; department, team, title, level: who is in it; " +
        "manager: whom a person reports to; reports: who reports to a person; chain: a person's managers up to the top; list: everybody",
    },
    query: {
      type: "string",
      description: "What to look for: words, a department, a team, a title, a level (ceo, vp, director, manager, ic), or a person",
    },
    limit: { type: "integer", minimum: 1, maximum: 100, description: "At most this many people (default 10)" },
    offset: { type: "integer", minimum: 0, description: "Skip this many, to read on" },
  },
};

async function ask(endpoint, request, signal) {
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
    signal: AbortSignal.any([AbortSignal.timeout(10_000), ...(signal ? [signal] : [])]),
  });
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer?.message ?? `the directory answered ${response.status}`);
  }
  return answer;
}

export default {
  id: "fleet-people",
  name: "Fleet people",
  description: "Looks up colleagues in the organisation's directory.",
  register(api) {
    const { endpoint } = api.pluginConfig;
    api.registerTool({
      name: "people",
      label: "People",
      description:
        "Look up colleagues in the organisation's directory: who they are, their title, team, department, manager, " +
        "reports and Matrix id. Use it before you mention or message somebody.",
      parameters: PARAMETERS,
      async execute(_callId, params, signal) {
        const answer = await ask(endpoint, params, signal);
        return { content: [{ type: "text", text: JSON.stringify(answer) }], details: answer };
      },
    });
  },
};
