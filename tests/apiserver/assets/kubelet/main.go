// Command kubelet is the one part of a kubelet that test clusters need: it serves exec.
//
// Every command run in any pod of node NAME becomes a local command behind that node's PREFIX (an `ip netns exec`,
// an `nsenter`), so that "the pod on the node" is the lab node itself. The API server finds it at the Node's
// InternalIP and status.daemonEndpoints.kubeletEndpoint.Port.
//
//	kubelet -cert FILE -key FILE -client-ca FILE NAME=PORT=PREFIX...
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	idle     = 4 * time.Hour
	creation = 30 * time.Second
	killed   = 137 // what a runtime reports for a command that a signal ended
)

// node runs the commands of all pods of one node.
type node struct {
	name   string
	prefix []string
}

// ExecInContainer runs argv behind the node's prefix. Its stdin ends when the client says so.
func (n node) ExecInContainer(ctx context.Context, pod, _, container string, argv []string,
	in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	full := append(append([]string{}, n.prefix...), argv...)
	cmd := exec.CommandContext(ctx, full[0], full[1:]...)
	cmd.Env = append(os.Environ(), "NODE_NAME="+n.name, "POD_NAME="+pod, "CONTAINER_NAME="+container)
	cmd.WaitDelay = 2 * time.Second
	if out != nil {
		cmd.Stdout = out
	}
	if errs != nil {
		cmd.Stderr = errs
	}
	if in != nil {
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
		}()
	}
	err := cmd.Run()
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		code := exited.ExitCode()
		if code < 0 {
			code = killed
		}
		return utilexec.CodeExitError{Err: err, Code: code}
	}
	return err
}

// ServeHTTP answers /exec/NAMESPACE/POD/CONTAINER.
func (n node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 4 || parts[0] != "exec" {
		http.NotFound(w, r)
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, n, parts[2], "", parts[3], r.URL.Query()["command"], options, idle, creation,
		remotecommand.SupportedStreamingProtocols)
}

func main() {
	cert := flag.String("cert", "", "serving certificate")
	key := flag.String("key", "", "its key")
	clientCA := flag.String("client-ca", "", "who signs the API server's client certificate")
	flag.Parse()
	if err := serve(*cert, *key, *clientCA, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func serve(cert, key, clientCA string, nodes []string) error {
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	failed := make(chan error)
	for _, arg := range nodes {
		parts := strings.SplitN(arg, "=", 3)
		if len(parts) != 3 {
			return fmt.Errorf("%q is not NAME=PORT=PREFIX", arg)
		}
		server := &http.Server{
			Addr:      "127.0.0.1:" + parts[1],
			Handler:   node{parts[0], strings.Fields(parts[2])},
			TLSConfig: &tls.Config{ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
			// The SPDY upgrade needs HTTP/1.1.
			TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		}
		go func() { failed <- server.ListenAndServeTLS(cert, key) }()
	}
	return <-failed
}
