// kafkajs: the verbs of ../README.md.
const readline = require('readline')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')

// The codecs that kafkajs leaves to others. One that is not installed fails where it is used.
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
CompressionCodecs[CompressionTypes.Snappy] = () => require('kafkajs-snappy')()
CompressionCodecs[CompressionTypes.LZ4] = () => {
  const lz4 = require('lz4js')
  return { compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)), decompress: async buffer => Buffer.from(lz4.decompress(buffer)) }
}
let zstd // begun once: the client asks for its codec again for each batch
const zstdReady = async () => { zstd = zstd || require('@bokuweb/zstd-wasm').init().then(() => require('@bokuweb/zstd-wasm')); return zstd }
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstdReady()).compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from((await zstdReady()).decompress(buffer))
})

const connect = brokers => new Kafka({ brokers: brokers.split(','), logLevel: logLevel.ERROR, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 100 } })
const stagedAt = i => 1700000000000 + 1000 * i
const require_ = (ok, found) => { if (!ok) throw new Error('found ' + JSON.stringify(found)) }
const show = (partition, { offset, key, value }) => console.log(`${partition} ${offset} ${key} ${value}`)
const inputEnded = () => new Promise(resolve => { process.stdin.on('end', resolve); process.stdin.resume() })

async function awaitTrue (what, ok) {
  for (const end = Date.now() + 60000; !(await ok()); await new Promise(resolve => setTimeout(resolve, 100))) {
    require_(Date.now() < end, 'not in time: ' + what)
  }
}

// One request at a time, as its idempotent producer needs, and for one partition: when a request fails, the client forgets what another broker
// has stored of the same send(), and some of its records are then lost, or refused as out of order.
async function produce (brokers, topic, codec) {
  const producer = connect(brokers).producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  let waiting = []
  let ended = false
  let wake = () => {}
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', line => { const [key, value] = line.split(':'); waiting.push({ key, value }); wake() })
  lines.on('close', () => { ended = true; wake() })
  while (!ended || waiting.length > 0) {
    if (waiting.length === 0) {
      await new Promise(resolve => { wake = resolve })
      continue
    }
    const perKey = new Map()
    for (const m of waiting.splice(0)) perKey.set(m.key, [...(perKey.get(m.key) || []), m])
    for (const messages of perKey.values()) {
      await producer.send({ topic, messages, compression: codecs[codec] })
      for (const m of messages) console.log('acked ' + m.value)
    }
  }
  await producer.disconnect()
}

async function consume (brokers, groupId, topic) {
  const consumer = connect(brokers).consumer({ groupId, heartbeatInterval: 300, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ partition, message }) => show(partition, message) })
  await inputEnded()
  await consumer.disconnect()
}

// A consumer of kafkajs is always in a group, and seeks once it runs.
async function seek (brokers, topic, partition, by, at) {
  partition = Number(partition)
  const kafka = connect(brokers)
  if (by === 'time') {
    const admin = kafka.admin()
    await admin.connect()
    at = (await admin.fetchTopicOffsetsByTimestamp(topic, Number(at))).find(p => p.partition === partition).offset
    await admin.disconnect()
  }
  const consumer = kafka.consumer({ groupId: 'kafkajs-seek-' + process.pid, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise(resolve => {
    let shown = false
    consumer.run({
      eachMessage: async ({ partition: p, message }) => {
        if (shown || p !== partition || Number(message.offset) < Number(at)) return
        shown = true
        show(p, message)
        resolve()
      }
    })
    consumer.seek({ topic, partition, offset: at })
  })
  await consumer.disconnect()
}

async function admin (brokers, topic, data, groupId, list) {
  const a = connect(brokers).admin()
  await a.connect()
  const described = async () => (await a.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.sort((x, y) => x.partitionId - y.partitionId)
  const offset = async () => (await a.fetchOffsets({ groupId, topics: [data] }))[0].partitions[0].offset
  const grown = n => awaitTrue('the topic is described', async () => { const p = await described(); return p.length === n && p[0].replicas.length === 3 })
  const how = {
    'create topic': async () => require_(await a.createTopics({
      topics: [{ topic, numPartitions: 2, replicationFactor: 3, configEntries: [{ name: 'retention.ms', value: '86400000' }] }]
    }), 'it was there'),
    'describe topic': () => grown(2),
    'describe cluster': async () => { const found = await a.describeCluster(); require_(found.brokers.length === 3 && found.controller > 0, found) },
    'grow partitions': async () => { await a.createPartitions({ topicPartitions: [{ topic, count: 4 }] }); await grown(4) },
    // It has the older request only, which resets what it does not name.
    'alter configs': () => a.alterConfigs({
      validateOnly: false,
      resources: [{
        type: ConfigResourceTypes.TOPIC,
        name: topic,
        configEntries: [{ name: 'retention.ms', value: '86400000' }, { name: 'max.message.bytes', value: '2097152' }]
      }]
    }),
    'describe configs': () => awaitTrue('the settings are seen', async () => {
      const found = await a.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
      const value = name => found.resources[0].configEntries.find(e => e.configName === name).configValue
      return value('max.message.bytes') === '2097152' && value('retention.ms') === '86400000'
    }),
    'offsets by time': async () => { const found = await a.fetchTopicOffsetsByTimestamp(data, stagedAt(20)); require_(found[0].offset === '20', found) },
    'delete records': () => a.deleteTopicRecords({ topic: data, partitions: [{ partition: 0, offset: '10' }] }),
    'list groups': async () => { const found = await a.listGroups(); require_(found.groups.some(g => g.groupId === groupId), found) },
    'describe group': async () => { const found = await a.describeGroups([groupId]); require_(found.groups[0].state === 'Empty', found) },
    'list group offsets': async () => require_(await offset() === '7', await offset()),
    'alter group offsets': async () => {
      await a.setOffsets({ groupId, topic: data, partitions: [{ partition: 0, offset: '30' }] })
      require_(await offset() === '30', await offset())
    },
    'delete group': () => a.deleteGroups([groupId]),
    'reassign partitions': async () => {
      const want = (await described())[0].replicas.reverse()
      await a.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas: want }] }] })
      await awaitTrue('the replicas are as assigned', async () => {
        const under = await a.listPartitionReassignments({ topics: [{ topic, partitions: [0] }] })
        return under.topics.length === 0 && JSON.stringify((await described())[0].replicas) === JSON.stringify(want)
      })
    },
    'delete topic': () => a.deleteTopics({ topics: [topic] })
  }
  let failed = false
  for (const operation of list.split(',')) {
    try {
      await how[operation]()
      console.log('did ' + operation)
    } catch (e) {
      failed = true
      console.error(operation + ' failed:', e)
    }
  }
  await a.disconnect()
  if (failed) throw new Error('not all operations worked')
}

const verbs = { version: async () => console.log('kafkajs ' + require('kafkajs/package.json').version), produce, consume, seek, admin }
const [verb, ...args] = process.argv.slice(2)
verbs[verb](...args).then(() => process.exit(0), e => { console.error(e); process.exit(1) })
