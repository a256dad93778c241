package group

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/api"
)

const (
	// nameBytesMax bounds the names of groups, members, instances, protocols and topics, in bytes.
	nameBytesMax = 512
	// clientBytesMax is what is kept of a client's ID and host, in bytes.
	clientBytesMax = 128
	// protocolsMax bounds a member's protocols.
	protocolsMax = 32
)

// JoinGroup is api.Groups' JoinGroup. CodeMemberIDRequired, CodeInconsistentProtocol, CodeUnknownMember, CodeFencedInstance, CodeGroupFull,
// CodeInvalidSessionTimeout, CodeInvalidRequest.
func (c *Coordinator) JoinGroup(ctx context.Context, req api.JoinRequest) (api.JoinResult, error) {
	t, err := c.lead()
	if err != nil {
		return api.JoinResult{}, err
	}
	ev, err := c.joinEvent(req)
	if err != nil {
		return api.JoinResult{}, err
	}
	return t.join(ctx, ev, isNew(req.MemberRef))
}

func (c *Coordinator) joinEvent(req api.JoinRequest) (*Join, error) {
	if err := c.checkJoin(req); err != nil {
		return nil, err
	}
	rebalance := min(req.RebalanceTimeout, c.settings.RebalanceTimeoutMax)
	if rebalance <= 0 {
		rebalance = req.SessionTimeout // JoinGroup version 0 has one timeout for both
	}
	clientID := clip(req.ClientID)
	return &Join{
		Group: req.Group, MemberID: req.MemberID, NewID: c.newMemberID(clientID, req.InstanceID), InstanceID: req.InstanceID,
		ClientID: clientID, ClientHost: clip(req.ClientHost),
		SessionMs: int32(req.SessionTimeout.Milliseconds()), RebalanceMs: int32(rebalance.Milliseconds()),
		ProtocolType: req.ProtocolType, Protocols: req.Protocols, RequireMemberID: req.RequireMemberID,
	}, nil
}

// newMemberID follows Kafka: the client's or the instance's name, and something unique.
func (c *Coordinator) newMemberID(clientID, instanceID string) string {
	switch {
	case instanceID != "":
		return instanceID + "-" + c.cfg.NewID()
	case clientID != "":
		return clientID + "-" + c.cfg.NewID()
	}
	return "member-" + c.cfg.NewID()
}

// clip shortens what is for people's eyes only, and makes it text: it ends up in protobuf strings, which must be UTF-8.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), clientBytesMax)], "") }

func (c *Coordinator) checkJoin(req api.JoinRequest) error {
	if err := checkRef(req.MemberRef); err != nil {
		return err
	}
	s := c.settings
	if req.SessionTimeout < s.SessionTimeoutMin || req.SessionTimeout > s.SessionTimeoutMax {
		return api.Errorf(api.CodeInvalidSessionTimeout, "group %q: a session timeout of %v is not between %v and %v",
			req.Group, req.SessionTimeout, s.SessionTimeoutMin, s.SessionTimeoutMax)
	}
	if len(req.ProtocolType) > nameBytesMax || len(req.Protocols) > protocolsMax {
		return api.Errorf(api.CodeInvalidRequest, "group %q: more than %d protocols, or too long a protocol type", req.Group, protocolsMax)
	}
	size := 0
	for _, p := range req.Protocols {
		if p.Name == "" || len(p.Name) > nameBytesMax {
			return api.Errorf(api.CodeInvalidRequest, "group %q: a protocol's name is empty or too long", req.Group)
		}
		size += len(p.Name) + len(p.Metadata)
	}
	if size > s.SubscriptionBytesMax {
		return api.Errorf(api.CodeMessageTooLarge, "group %q: a subscription of %d bytes exceeds the limit of %d", req.Group, size, s.SubscriptionBytesMax)
	}
	return nil
}

func checkRef(ref api.MemberRef) error {
	if err := checkGroupName(ref.Group); err != nil {
		return err
	}
	if len(ref.MemberID) > 2*nameBytesMax || len(ref.InstanceID) > nameBytesMax {
		return api.Errorf(api.CodeInvalidRequest, "group %q: a member ID or instance ID is too long", ref.Group)
	}
	if !utf8.ValidString(ref.MemberID) || !utf8.ValidString(ref.InstanceID) {
		return api.Errorf(api.CodeInvalidRequest, "group %q: a member ID or instance ID is not UTF-8", ref.Group)
	}
	return nil
}

func checkGroupName(group string) error {
	if group == "" || len(group) > nameBytesMax {
		return api.Errorf(api.CodeInvalidRequest, "a group's name must have 1 to %d bytes", nameBytesMax)
	}
	if !utf8.ValidString(group) {
		return api.Errorf(api.CodeInvalidRequest, "a group's name must be UTF-8: %q is not", group)
	}
	return nil
}

// isNew says that a joining member does not know its ID before the call returns.
func isNew(ref api.MemberRef) bool { return ref.MemberID == "" && ref.InstanceID == "" }

// join proposes a join and waits for the end of the join phase.
func (t *term) join(ctx context.Context, ev *Join, isNew bool) (api.JoinResult, error) {
	res, err := t.propose(ctx, ev)
	switch {
	case err == nil && res.Err != nil:
		return api.JoinResult{}, res.Err
	case err == nil && res.Joined != nil:
		return *res.Joined, nil
	}
	var joined api.JoinResult
	if err == nil {
		joined, err = t.awaitJoin(ctx, ev.Group, res.MemberID, ev.InstanceID)
	}
	if err != nil && isNew {
		t.abandon(ev.Group, ev.NewID)
	}
	return joined, err
}

// abandon removes a dynamic member whose call ended before it could learn its ID: nobody will ever speak for it, and the group would wait
// for its session to end. If the term has ended, the session does that.
func (t *term) abandon(group, member string) {
	_ = t.queue.add(&Leave{Group: group, MemberID: member}, func(Result, *api.Error) {})
}

func (t *term) awaitJoin(ctx context.Context, name, member, instance string) (api.JoinResult, error) {
	var res api.JoinResult
	err := t.await(ctx, name, func(g *group, _ watch) (bool, *api.Error) {
		m, err := g.check(member, instance)
		if err != nil || m.joined {
			return false, err
		}
		res = g.joinResult(m)
		return true, nil
	})
	return res, err
}

// SyncGroup is api.Groups' SyncGroup. CodeRebalanceInProgress when a new join phase has begun, CodeIllegalGeneration, CodeUnknownMember,
// CodeFencedInstance, CodeInconsistentProtocol.
func (c *Coordinator) SyncGroup(ctx context.Context, req api.SyncRequest) (api.SyncResult, error) {
	t, err := c.lead()
	if err != nil {
		return api.SyncResult{}, err
	}
	if err := checkRef(req.MemberRef); err != nil {
		return api.SyncResult{}, err
	}
	leads, err := t.beforeSync(req)
	if err != nil {
		return api.SyncResult{}, err
	}
	if leads {
		if err := t.proposeSync(ctx, req); err != nil {
			return api.SyncResult{}, err
		}
	}
	return t.awaitSync(ctx, req.MemberRef)
}

// beforeSync validates the call and says whether it is the one that brings the assignment.
func (t *term) beforeSync(req api.SyncRequest) (leads bool, err error) {
	t.machine.view(req.Group, func(g *group) {
		if g == nil {
			g = newGroup(req.Group)
		}
		m, e := g.checkSync(req.MemberID, req.InstanceID, req.Generation, req.ProtocolType, req.Protocol)
		if e != nil {
			err = e
			return
		}
		leads = m.id == g.leader && g.state == CompletingRebalance
	})
	return leads, err
}

func (t *term) proposeSync(ctx context.Context, req api.SyncRequest) error {
	ev := &Sync{
		Group: req.Group, MemberID: req.MemberID, InstanceID: req.InstanceID, Generation: req.Generation,
		ProtocolType: req.ProtocolType, Protocol: req.Protocol, Assignments: sortedAssignments(req.Assignments),
	}
	res, err := t.propose(ctx, ev)
	if err != nil {
		return err
	}
	if res.Err != nil {
		return res.Err
	}
	return nil
}

// awaitSync waits until the member's generation has an assignment.
func (t *term) awaitSync(ctx context.Context, ref api.MemberRef) (api.SyncResult, error) {
	t.noteSynced(ref)
	var res api.SyncResult
	var session time.Duration
	err := t.await(ctx, ref.Group, func(g *group, w watch) (bool, *api.Error) {
		m, err := g.check(ref.MemberID, ref.InstanceID)
		switch {
		case err != nil:
			return false, err
		case g.generation != ref.Generation || g.state == PreparingRebalance:
			return false, g.rebalancing()
		case w.generation == g.generation && w.failed != nil:
			return false, w.failed
		case g.state == CompletingRebalance:
			return false, nil
		}
		res = api.SyncResult{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
		session = m.session()
		return true, nil
	})
	if err == nil {
		t.extend(ref.Group, ref.MemberID, session)
	}
	return res, err
}

func (t *term) noteSynced(ref api.MemberRef) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watches[ref.Group]; w != nil && w.generation == ref.Generation && w.synced != nil {
		w.synced[ref.MemberID] = true
	}
}

// Heartbeat is api.Groups' Heartbeat. It writes nothing.
func (c *Coordinator) Heartbeat(_ context.Context, ref api.MemberRef) error {
	t, err := c.lead()
	if err != nil {
		return err
	}
	var refused *api.Error
	var session time.Duration
	t.machine.view(ref.Group, func(g *group) {
		if g == nil {
			g = newGroup(ref.Group)
		}
		if refused = g.checkHeartbeat(ref); refused == nil || refused.Code == api.CodeRebalanceInProgress {
			session = g.members[ref.MemberID].session()
		}
	})
	if session > 0 {
		t.extend(ref.Group, ref.MemberID, session)
	}
	if refused != nil {
		return refused
	}
	return nil
}

// LeaveGroup is api.Groups' LeaveGroup. With an instance ID and no member ID it removes whichever member has the instance ID.
func (c *Coordinator) LeaveGroup(ctx context.Context, ref api.MemberRef) error {
	if err := checkRef(ref); err != nil {
		return err
	}
	return c.do(ctx, &Leave{Group: ref.Group, MemberID: ref.MemberID, InstanceID: ref.InstanceID})
}

// do proposes an event whose outcome is an error or nothing.
func (c *Coordinator) do(ctx context.Context, ev Event) error {
	t, err := c.lead()
	if err != nil {
		return err
	}
	res, err := t.propose(ctx, ev)
	if err != nil {
		return err
	}
	if res.Err != nil {
		return res.Err
	}
	return nil
}
