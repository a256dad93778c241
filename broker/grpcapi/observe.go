package grpcapi

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// observe times calls. Only methods that are served come here.
func (o Options) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	resp, err := handle(ctx, req)
	o.OnRequest(shortMethod(info.FullMethod), time.Since(began))
	return resp, err
}

// shortMethod makes Log/Produce of /flotilla.v1.Log/Produce.
func shortMethod(full string) string {
	service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return service[strings.LastIndexByte(service, '.')+1:] + "/" + method
}
