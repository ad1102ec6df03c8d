// A certified OpenID Connect provider on loopback for the harness: client credentials, JWT access tokens with groups,
// key rotation, short-lived tokens. Argument: a JSON file {port, cert, key, audience, clients: [{id, secret, groups,
// seconds, claims}]}. Beside the provider's own endpoints it answers POST /harness/rotate?keep=1|0 (a new signing key,
// the old one still published or not), POST /harness/outage?on=1|0, and GET /harness/fetches (JWKS reads so far).
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `https://localhost:${config.port}`;
const clients = new Map(config.clients.map((client) => [client.id, client]));

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'ES256', use: 'sig' };
}

function provider(keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: config.clients.map(({ id, secret }) => ({
      client_id: id,
      client_secret: secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:exeat:e2e',
        getResourceServerInfo: (_ctx, _resource, client) => ({
          scope: '',
          audience: config.audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: clients.get(client.clientId).seconds ?? 3600,
          jwt: { sign: { alg: 'ES256', kid: keys[0].kid } },
        }),
      },
    },
    extraTokenClaims: (_ctx, token) => {
      const { groups, claims } = clients.get(token.clientId);
      return { groups, ...claims };
    },
  });
}

let keys = [newKey()];
let answer = provider(keys).callback();
let outage = false;
let fetches = 0;

function harness(url, response) {
  const on = (name) => url.searchParams.get(name) === '1';
  if (url.pathname === '/harness/rotate') {
    keys = on('keep') ? [newKey(), ...keys] : [newKey()];
    answer = provider(keys).callback();
  } else if (url.pathname === '/harness/outage') {
    outage = on('on');
  }
  response.end(JSON.stringify({ fetches, kid: keys[0].kid }));
}

createServer({ cert: readFileSync(config.cert), key: readFileSync(config.key) }, (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/harness/')) return harness(url, response);
  if (outage) {
    response.statusCode = 503;
    return response.end();
  }
  if (url.pathname === '/jwks') fetches += 1;
  return answer(request, response);
}).listen(config.port, '127.0.0.1', () => console.error(`identity provider ${issuer}`));
