// Requests go to where this page came from, whatever addresses the description names: the only one that the page may reach.
const service = new URL("..", document.currentScript.src).href.replace(/\/$/, "");

const thisAddress = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (description) => update({ ...description, servers: [{ url: service }] }),
      },
    },
  },
});

SwaggerUIBundle({
  url: `${service}/openapi.yaml`,
  dom_id: "#page",
  plugins: [thisAddress],
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the default is a server on the internet
});
