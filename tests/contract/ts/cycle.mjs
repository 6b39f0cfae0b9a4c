// The whole cycle through the TypeScript SDK: `node cycle.mjs BASE_URL`. One JSON line per step on standard output;
// a line on standard input says that the batch has been ended from outside.
import { createInterface } from 'node:readline';

import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { VERSION } from '@anthropic-ai/sdk/version';

const client = new Anthropic({ baseURL: process.argv[2], apiKey: 'test-key' });
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (step, what) => console.log(JSON.stringify({ step, ...what }));

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof APIError) || error.status === undefined) return { text: error.message };
    const body = error.error;
    return {
      kind: error.constructor.name,
      status: error.status,
      type: body.error.type,
      message: body.error.message,
      ids_agree: error.requestID === body.request_id,
    };
  }
  return {};
}

async function gather(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}

const params = { model: 'm', max_tokens: 8, messages: [{ role: 'user', content: 'hi' }] };
const requests = ['r0', 'r1', 'r2'].map((custom_id) => ({ custom_id, params }));

async function cycle(batches) {
  const batch = await batches.create({ requests });
  say('created', { id: batch.id, status: batch.processing_status, count: batch.request_counts.processing });
  say('early', await refusal(() => batches.results(batch.id)));
  say('undeletable', await refusal(() => batches.delete(batch.id)));
  await answers.next();
  const ended = await batches.retrieve(batch.id);
  say('ended', { status: ended.processing_status, url: ended.results_url, ended: ended.ended_at !== null });
  const lines = await gather(await batches.results(batch.id));
  say('results', {
    kinds: Object.fromEntries(lines.map((line) => [line.custom_id, line.result.type])),
    texts: lines.filter((line) => line.result.type === 'succeeded').map((line) => line.result.message.content[0].text),
  });
  const canceled = await batches.cancel((await batches.create({ requests })).id);
  say('canceled', { status: canceled.processing_status, began: canceled.cancel_initiated_at !== null });
  const all = (await gather(batches.list({ limit: 1 }))).map((one) => one.id);
  say('listed', { all, known: [batch.id, canceled.id] });
  say('deleted', { type: (await batches.delete(batch.id)).type });
  say('unknown', await refusal(() => batches.retrieve(batch.id)));
  say('refused', await refusal(() => batches.create({ requests: [] })));
  say('request_id', { value: (await batches.retrieve(canceled.id))._request_id });
}

say('version', { value: VERSION });
await cycle(client.messages.batches);
await cycle(client.beta.messages.batches);
process.exit(0);
