// kafkajs: prints "ok FEATURE" for what works. Usage: node kafkajs.js BROKERS
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')
const kafka = new Kafka({ brokers: process.argv[2].split(','), logLevel: logLevel.NOTHING })
const admin = kafka.admin()
const producer = kafka.producer({ idempotent: true })
let values = new Set()

const pause = () => new Promise(resolve => setTimeout(resolve, 50))
async function until (what, ok) {
  for (const end = Date.now() + 40000; !ok(); await pause()) {
    if (Date.now() > end) throw new Error('not in time: ' + what + ', ' + values.size + ' were read')
  }
}
async function send (first, last, compression) {
  const messages = []
  for (let i = first; i < last; i++) messages.push({ key: 'key-' + i, value: String(i) })
  await producer.send({ topic: 'kafkajs', compression, messages })
}
async function member () {
  const c = kafka.consumer({ groupId: 'kafkajs', heartbeatInterval: 300 })
  await c.connect()
  await c.subscribe({ topic: 'kafkajs', fromBeginning: true })
  await c.run({ eachMessage: async ({ message }) => { values.add(message.value.toString()) } })
  return c
}
async function main () {
  await admin.connect()
  await producer.connect()
  await admin.createTopics({ topics: [{ topic: 'kafkajs', numPartitions: 3, replicationFactor: 3 }] })
  await send(0, 100, CompressionTypes.None)
  await send(100, 200, CompressionTypes.GZIP)
  const members = [await member(), await member(), await member()]
  await until('all is read', () => values.size === 200)
  console.log('ok compression')
  await members[0].disconnect()
  await send(200, 300)
  await until('all is read after a rebalance', () => values.size === 300)
  console.log('ok group')
  await members[1].disconnect()
  await members[2].disconnect()
  await send(300, 350)
  values = new Set()
  const last = await member()
  await until('the rest is read', () => values.has('349') && values.has('300'))
  if (values.size > 150) throw new Error(values.size + ' were read again')
  await last.disconnect()
  console.log('ok resume')
  const offsets = await admin.fetchTopicOffsetsByTimestamp('kafkajs', 1000)
  if (offsets.some(o => o.offset !== '0')) throw new Error(JSON.stringify(offsets))
  console.log('ok seek')
  await admin.deleteGroups(['kafkajs'])
  await admin.deleteTopics({ topics: ['kafkajs'] })
  console.log('ok admin')
  await producer.disconnect()
  await admin.disconnect()
}
main().then(() => process.exit(0), e => { console.error(e); process.exit(1) })
