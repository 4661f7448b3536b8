// Run by test_javascript.py against `honcho-exec serve`, as `node --test javascript.mjs`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Honcho } from '@honcho-ai/sdk'

const connect = (workspaceId, apiKey = process.env.HONCHO_API_KEY) =>
  new Honcho({ workspaceId, baseURL: process.env.HONCHO_URL, apiKey, maxRetries: 0 })
const ids = (list) => list.map((one) => one.id)
const contents = (list) => list.map((one) => one.content)

async function all(page) {
  const found = []
  for await (const one of page) found.push(one)
  return found
}

// Every test has a workspace of its own, with a session of two in which something was said.
async function talked(workspace) {
  const honcho = connect(workspace)
  const ada = await honcho.peer('ada', { metadata: { age: 36 } })
  const bot = await honcho.peer('bot')
  const session = await honcho.session('talk', { peers: [ada, bot] })
  const sent = await session.addMessages([
    ada.message('The heron stands in the reeds.', { createdAt: new Date('2025-01-02T03:04:05Z') }),
    bot.message('Noted.', { metadata: { kind: 'answer' } }),
  ])
  return { honcho, ada, bot, session, sent }
}

test('messages', async () => {
  const { session, sent } = await talked('messages')
  assert.equal(sent[0].createdAt, '2025-01-02T03:04:05Z')
  assert.deepEqual(ids(await all(await session.messages({ size: 1 }))), ids(sent))
  assert.deepEqual(ids((await session.messages({ metadata: { kind: 'answer' } })).items), [sent[1].id])
  assert.equal((await session.getMessage(sent[0].id)).content, 'The heron stands in the reeds.')
  assert.deepEqual((await session.updateMessage(sent[0], { seen: true })).metadata, { seen: true })
})

test('search', async () => {
  const { honcho, ada, bot, session, sent } = await talked('search')
  assert.equal((await honcho.search('heron'))[0].id, sent[0].id)
  assert.equal((await session.search('heron', { limit: 1 }))[0].id, sent[0].id)
  assert.deepEqual(ids(await ada.search('heron')), [sent[0].id])
  assert.deepEqual(contents(await bot.search('heron', { filters: { peer_id: 'ada' } })), [])
})

test('chat, whole and streamed, of a peer and of a workspace', async () => {
  const { honcho, ada, bot, session } = await talked('chat')
  const options = { target: ada, session, reasoningLevel: 'low' }
  const answer = await bot.chat('Where is the heron?', options)
  assert.match(answer, /The heron stands in the reeds\./)
  assert.equal((await bot.chat('Where is the heron?', { ...options, includeEvidence: true })).content, answer)
  assert.match(await bot.chat('heron', { target: ada, sessions: [session] }), /reeds/)
  assert.equal((await all(await bot.chatStream('Where is the heron?', options))).join(''), answer)
  assert.match(await honcho.chat('heron'), /ada: The heron stands in the reeds\./)
  assert.match((await all(await honcho.chatStream('heron'))).join(''), /reeds/)
  assert.equal(await ada.chat('volcanoes'), null)
})

test('cards, representations, contexts and summaries', async () => {
  const { ada, bot, session } = await talked('known')
  assert.deepEqual(await ada.setCard(['Lives by a lake']), ['Lives by a lake'])
  assert.deepEqual(await bot.setCard(['Likes herons'], ada), ['Likes herons'])
  assert.deepEqual([await ada.getCard(), await bot.card(ada)], [['Lives by a lake'], ['Likes herons']])
  const wanted = { target: ada, session, searchQuery: 'heron', searchTopK: 3, searchMaxDistance: 0.5 }
  assert.match(await bot.representation({ ...wanted, includeMostFrequent: true, maxConclusions: 5 }), /reeds/)
  assert.match(await session.representation(ada), /reeds/)
  const known = await bot.context({ target: ada, searchQuery: 'heron' })
  assert.deepEqual(known.peerCard, ['Likes herons'])
  const context = await session.context({ summary: true, tokens: 500, peerTarget: ada, peerPerspective: bot })
  assert.equal(context.messages.length, 2)
  assert.match(JSON.stringify(context.toOpenAI(bot)), /reeds/)
  assert.deepEqual((await session.summaries()).shortSummary, null)
})

test('conclusions', async () => {
  const { honcho, ada, bot, session } = await talked('conclusions')
  const [likes, rows] = await ada.conclusions.create([{ content: 'likes herons', sessionId: session }, { content: 'rows' }])
  await bot.conclusionsOf(ada).create({ content: 'is patient' })
  assert.deepEqual(contents((await ada.conclusions.list()).items), ['rows', 'likes herons'])
  assert.deepEqual(ids((await ada.conclusions.list({ session })).items), [likes.id])
  assert.deepEqual(ids(await ada.conclusions.query('herons', 5, 0.9)), [likes.id])
  assert.deepEqual(new Set(ids(await ada.conclusions.getMany([likes.id, rows.id]))), new Set([likes.id, rows.id]))
  assert.deepEqual((await ada.conclusions.derived(likes.id)).items, [])
  assert.match(await ada.conclusions.representation(), /likes herons/)
  assert.equal((await honcho.conclusions.list()).total, 3)
  await ada.conclusions.delete(likes.id)
  await assert.rejects(ada.conclusions.delete(likes.id), { status: 404 })
})

test('members', async () => {
  const { ada, bot, session } = await talked('members')
  await session.addPeers('carl')
  await session.removePeers(bot)
  assert.deepEqual(ids(await session.peers()), ['ada', 'carl'])
  await session.setPeers([ada, [bot, { observeOthers: true }]])
  await session.setPeerConfiguration(ada, { observeMe: false })
  assert.equal((await session.getPeerConfiguration(ada)).observeMe, false)
  assert.equal((await session.getPeerConfiguration(bot)).observeOthers, true)
  assert.deepEqual(ids((await ada.sessions()).items), ['talk'])
})

test('metadata and configuration', async () => {
  const { honcho, ada, session } = await talked('metadata')
  for (const place of [honcho, ada, session]) {
    await place.setMetadata({ plan: 'b' })
    await place.refresh()
    assert.deepEqual([place.metadata, await place.getMetadata()], [{ plan: 'b' }, { plan: 'b' }])
  }
  await ada.setConfiguration({ observeMe: false })
  assert.equal((await ada.getConfiguration()).observeMe, false)
  await session.setConfiguration({ summary: { enabled: false } })
  assert.equal((await session.getConfiguration()).summary.enabled, false)
  await honcho.setConfiguration({ reasoning: { enabled: true } })
  assert.equal((await honcho.getConfiguration()).reasoning.enabled, true)
})

test('lists and queue status', async () => {
  const { honcho, ada, session } = await talked('lists')
  assert.deepEqual(ids((await honcho.peers()).items), ['ada', 'bot'])
  assert.deepEqual(ids((await honcho.sessions({ reverse: true })).items), ['talk'])
  assert.ok((await all(await honcho.workspaces())).includes('lists'))
  assert.equal((await honcho.queueStatus({ observer: ada })).pendingWorkUnits, 0)
  assert.equal((await session.queueStatus()).totalWorkUnits, 0)
})

test('a session is cloned', async () => {
  const { session, sent } = await talked('clones')
  assert.deepEqual(contents((await (await session.clone()).messages()).items), contents(sent))
  assert.equal((await (await session.clone(sent[0].id)).messages()).total, 1)
})

test('a file is uploaded', async () => {
  const { ada, session } = await talked('files')
  const file = { filename: 'notes.txt', content: Buffer.from('a kingfisher, naïve 😀'), content_type: 'text/plain' }
  const [message] = await session.uploadFile(file, ada, { metadata: { from: 'notes' }, createdAt: '2025-01-01T00:00:00Z' })
  assert.deepEqual([message.content, message.metadata], ['a kingfisher, naïve 😀', { from: 'notes' }])
  const picture = { filename: 'a.png', content: Buffer.from('PNG'), content_type: 'image/png' }
  await assert.rejects(session.uploadFile(picture, ada), { status: 415 })
})

test('sessions and workspaces are deleted', async () => {
  const { honcho, session } = await talked('deleted')
  await assert.rejects(honcho.deleteWorkspace('deleted'), { status: 409 })
  await session.delete()
  // The name is free at once, for a new session without the old messages.
  assert.deepEqual(await session.getMetadata(), {})
  assert.deepEqual((await session.messages()).items, [])
  await session.delete()
  await honcho.deleteWorkspace('deleted')
  assert.ok(!(await all(await connect('other').workspaces())).includes('deleted'))
})

test('what is not served, and a wrong key, are errors that say so', async () => {
  const { honcho, ada } = await talked('refused')
  for (const refused of [
    () => honcho.scope('mine'),
    () => honcho.scheduleDream({ observer: ada }),
    () => ada.chat('heron', { responseFormat: { type: 'object' } }),
  ]) {
    await assert.rejects(refused(), (error) => error.status === 501 && /needs a Honcho server/.test(error.message))
  }
  await assert.rejects(connect('refused', 'wrong').peer('eve'), { status: 401 })
})
