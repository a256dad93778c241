package group

import (
	"errors"

	"github.com/flotilla-log/flotilla/broker/api"
)

// proposeError maps a failed proposal to what a member can act on. All outcomes are retriable: joining again and committing again do no
// harm if the first attempt got through after all.
func (t *term) proposeError(err error) *api.Error {
	name := t.c.cfg.Name
	if t.ctx.Err() != nil {
		return api.Errorf(api.CodeNotCoordinator, "%s: this broker has ceased to be the coordinator: %w", name, err)
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return api.Errorf(api.CodeCoordinatorNotAvailable, "%s: the coordinator cannot write: %w", name, err)
	}
	code := e.Code
	switch code {
	case api.CodeNotLeader:
		code = api.CodeNotCoordinator
	case api.CodeStorageFull, api.CodeThrottled, api.CodeMessageTooLarge:
	default:
		code = api.CodeCoordinatorNotAvailable
	}
	mapped := api.Errorf(code, "%s: the coordinator cannot write: %w", name, err)
	mapped.Leader = e.Leader
	return mapped
}
