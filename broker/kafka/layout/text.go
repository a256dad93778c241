package layout

// layoutText has a line for each API: its key, its name, the first flexible version (-: none), and its fields in order:
//
//	1 2 4 8 u   so many bytes; u: 16
//	s b         a string, bytes, of which the length comes first
//	<x> [...]   an array of x, of structs
//	{...} ?{...}  a struct, and one that may be null
//	@3- @0-2    only in these versions
//	#1          the tagged field 1
//
// It follows the definitions of github.com/twmb/franz-go/generate. The tests compare it with what kmsg writes, in all versions.
const layoutText = `
0 Produce 9 s@3- 2 4 [s@0-12 u@13- [4 b]]
1 Fetch 12 s#0 4@0-14 {4 8}#1 4 4 4@3- 1@4- 4@7- 4@7- [s@0-12 u@13- [4 4@9- 8 4@12- 8@5- 4 u#0 8#1]] [s@7-12 u@13- <4>]@7- s@11-
2 ListOffsets 6 4 1@2- [s [4 4@4- 8 4@0-0]] 4@10-
3 Metadata 9 [u@10- s] 1@4- 1@8-10 1@8-
5 StopReplica 2 4 4 1@4- 8@1- 1@0-2 [s 4@0-0 <4>@1-2 [4 4 1]@3-]
8 OffsetCommit 8 s 4@1- s@1- s@7- 8@2-4 [s@0-9 u@10- [4 8 8@1-1 4@6- s]]
9 OffsetFetch 6 s@0-7 [s <4>]@0-7 [s s@9- 4@9- [s@8-9 u@10- <4>]]@8- 1@7-
10 FindCoordinator 3 s@0-3 1@1- <s>@4-
11 JoinGroup 6 s 4 4@1- s s@5- s [s b] s@8-
12 Heartbeat 4 s 4 s s@3-
13 LeaveGroup 4 s s@0-2 [s s s@5-]@3-
14 SyncGroup 4 s 4 s s@3- s@5- s@5- [s b]
15 DescribeGroups 5 <s> 1@3-
16 ListGroups 3 <s>@4- <s>@5-
17 SASLHandshake - s
18 ApiVersions 3 s@3- s@3- s@5- 4@5-
19 CreateTopics 5 [s 4 2 [4 <4>] [s s]] 4 1@1-
20 DeleteTopics 4 <s>@0-5 [s u]@6- 4
21 DeleteRecords 2 [s [4 8]] 4
22 InitProducerID 2 s 4 8@3- 2@3-
23 OffsetForLeaderEpoch 4 4@3- [s [4 4@2- 4]]
24 AddPartitionsToTxn 3 s@0-3 8@0-3 2@0-3 [s <4>]@0-3 [s 8 2 1 [s <4>]]@4-
25 AddOffsetsToTxn 3 s 8 2 s
26 EndTxn 3 s 8 2 1
27 WriteTxnMarkers 1 [8 2 1 [s <4>] 4 1@2-]
28 TxnOffsetCommit 3 s s 8 2 4@3- s@3- s@3- [s@0-5 u@6- [4 8 4@2- s]]
29 DescribeACLs 2 1 s 1@1- s s 1 1
30 CreateACLs 2 [1 s 1@1- s s 1 1]
31 DeleteACLs 2 [1 s 1@1- s s 1 1]
32 DescribeConfigs 4 [1 s <s>] 1@1- 1@3-
33 AlterConfigs 2 [1 s [s s]] 1
34 AlterReplicaLogDirs 2 [s [s <4>]]
35 DescribeLogDirs 2 [s <4>]
36 SASLAuthenticate 2 b
37 CreatePartitions 2 [s 4 [<4>]] 4 1
38 CreateDelegationToken 2 s@3- s@3- [s s] 8
39 RenewDelegationToken 2 b 8
40 ExpireDelegationToken 2 b 8
41 DescribeDelegationToken 2 [s s]
42 DeleteGroups 2 <s>
43 ElectLeaders 2 1@1- [s <4>] 4
44 IncrementalAlterConfigs 1 [1 s [s 1 s]] 1
45 AlterPartitionAssignments 0 4 1@1- [s [4 <4>]]
46 ListPartitionReassignments 0 4 [s <4>]
47 OffsetDelete - s [s [4]]
48 DescribeClientQuotas 1 [s 1 s] 1
49 AlterClientQuotas 1 [[s s] [s 8 1]] 1
50 DescribeUserSCRAMCredentials 0 [s]
51 AlterUserSCRAMCredentials 0 [s 1] [s 1 4 b b]
55 DescribeQuorum 0 [s [4]]
56 AlterPartition 0 4 8 [s@0-1 u@2- [4 4 <4>@0-2 [4 8]@3- 1@1- 4]]
57 UpdateFeatures 0 4 [s 2 1@0-0 1@1-] 1@1-
60 DescribeCluster 0 1 1@1- 1@2-
61 DescribeProducers 0 [s <4>]
65 DescribeTransactions 0 <s>
66 ListTransactions 0 <s> <8> 8@1- s@2-
67 AllocateProducerIDs 0 4 8
68 ConsumerGroupHeartbeat 0 s s 4 s s 4 <s> s@1- s [u <4>]
69 ConsumerGroupDescribe 0 <s> 1
71 GetTelemetrySubscriptions 0 u
72 PushTelemetry 0 u 4 1 1 b
74 ListConfigResources 0 <1>@1-
75 DescribeTopicPartitions 0 [s] 4 ?{s 4}
76 ShareGroupHeartbeat 0 s s 4 s <s>
77 ShareGroupDescribe 0 <s> 1
78 ShareFetch 0 s s 4 4 4 4 4@1- 4@1- 1@2- 1@2- [u [4 4@0-0 [8 8 <1>]]] [u <4>]
79 ShareAcknowledge 0 s s 4 1@2- [u [4 [8 8 <1>]]]
83 InitializeShareGroupState 0 s [u [4 4 8]]
84 ReadShareGroupState 0 s [u [4 4]]
85 WriteShareGroupState 0 s [u [4 4 4 8 4@1- [8 8 1 2]]]
86 DeleteShareGroupState 0 s [u [4]]
87 ReadShareGroupStateSummary 0 s [u [4 4]]
89 StreamsGroupDescribe 0 <s> 1 1@1-
90 DescribeShareGroupOffsets 0 [s [s <4>]]
91 AlterShareGroupOffsets 0 s [s [4 8]]
92 DeleteShareGroupOffsets 0 s [s]
`
