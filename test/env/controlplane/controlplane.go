// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// startTimeout is how long each part may take until it serves. On two busy cores an API server has taken ten seconds.
const startTimeout = 60 * time.Second

const loopback = "127.0.0.1"

// Options says how Start runs a control plane. The zero value is a control plane on 127.0.0.1.
type Options struct {
	// Assets is the directory of the binaries, as Assets returns it. Empty: Start calls Assets.
	Assets string
	// Dir gets the folders logs, certs and etcd and the file admin.kubeconfig. It is made if it is absent.
	// Stop removes everything but the logs. Empty: a temporary directory, which Stop removes with the logs.
	Dir string
	// Address is the IP address that the API server listens on and writes into kubeconfigs. It must be one
	// of this network namespace. Empty: 127.0.0.1.
	Address string
	// CRDs lists files, or directories of files, of CustomResourceDefinitions. They are Established when Start returns.
	CRDs []string
	// WithoutControllers leaves out kube-controller-manager: namespaces get no ServiceAccount, and nothing collects garbage.
	WithoutControllers bool
	// Admission is the configuration of admission plugins, an AdmissionConfiguration of apiserver.config.k8s.io/v1 in
	// YAML. Empty: the defaults of the API server.
	Admission string
	// Kubelets, if not nil, makes it one for real nodes, with a scheduler.
	Kubelets *Kubelets
	// Log gets a line per step. May be nil.
	Log io.Writer
}

// ControlPlane is a running etcd, kube-apiserver and kube-controller-manager.
//
// The processes die with Stop. If this process dies without calling it (SIGKILL, a panic in a test), they
// stay: envtest, which starts two of the three, ties them to nothing. So run where that must not happen in a
// sandbox (test/env/sandbox), whose pid namespace takes them along.
type ControlPlane struct {
	dir       string
	temporary bool // dir is ours
	assets    string
	plane     *envtest.ControlPlane
	logs      []*os.File
	config    *rest.Config
	admin     string
	manager   *process // nil with Options.WithoutControllers
	scheduler *process // nil without Options.Kubelets

	mu sync.Mutex // guards the serial numbers of envtest's certificate authority
}

// Start runs a control plane and returns when it serves, its controllers work (the ServiceAccount default is
// there; see Options.WithoutControllers) and the CRDs are established. It is set up like a cluster: Node and RBAC authorization, the
// ServiceAccount and NodeRestriction admission plugins, TokenRequest, and the bootstrap roles.
// Without Options.Kubelets it has no scheduler, and without nodes its ClusterIPs lead nowhere.
// If it returns an error, nothing runs and the logs' last lines are part of the error.
func Start(ctx context.Context, o Options) (_ *ControlPlane, err error) {
	report := &reporter{out: o.Log}
	begin := time.Now()
	c := &ControlPlane{dir: o.Dir, assets: o.Assets}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	// Read before anything runs: a wrong path is then told at once.
	crds := envtest.CRDInstallOptions{
		Paths: o.CRDs, ErrorIfPathMissing: true, MaxTime: startTimeout, PollInterval: 50 * time.Millisecond,
	}
	if err := envtest.ReadCRDFiles(&crds); err != nil {
		return nil, fmt.Errorf("read the CRDs: %w", err)
	}
	crds.Paths = nil // InstallCRDs would read them once more
	if c.assets == "" {
		if c.assets, err = Assets(ctx, o.Log); err != nil {
			return nil, err
		}
		begin = time.Now()
	}
	if c.dir == "" {
		c.temporary = true
		if c.dir, err = os.MkdirTemp("", "controlplane-"); err != nil {
			return nil, fmt.Errorf("make a directory for the control plane: %w", err)
		}
	}
	// etcd insists on mode 0700 for its own.
	for _, name := range []string{"logs", "certs", "etcd"} {
		if err := os.MkdirAll(filepath.Join(c.dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("make a directory for the control plane: %w", err)
		}
	}
	if err := c.configure(ctx, o.Address, o.Admission); err != nil {
		return nil, err
	}
	if o.Kubelets != nil {
		if err := o.Kubelets.serve(c); err != nil {
			return nil, err
		}
	}
	if err := c.plane.Start(); err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver: %w%s%s", err, c.tail("etcd"), c.tail("kube-apiserver"))
	}
	if err := c.addAdmin(); err != nil {
		return nil, err
	}
	report.line("etcd and kube-apiserver serve after %.1f s at %s", time.Since(begin).Seconds(), c.config.Host)
	if !o.WithoutControllers {
		if err := c.startControllers(); err != nil {
			return nil, err
		}
	}
	if o.Kubelets != nil {
		if err := o.Kubelets.startScheduler(c); err != nil {
			return nil, err
		}
	}
	if len(crds.CRDs) > 0 {
		if _, err := envtest.InstallCRDs(c.config, crds); err != nil {
			return nil, fmt.Errorf("install the CRDs: %w", err)
		}
	}
	if !o.WithoutControllers {
		if err := c.awaitControllers(ctx); err != nil {
			return nil, err
		}
	}
	report.line("the control plane is ready after %.1f s", time.Since(begin).Seconds())
	return c, nil
}

// configure says how etcd and the API server are to be run.
func (c *ControlPlane) configure(ctx context.Context, address, admission string) error {
	if address == "" {
		address = loopback
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return fmt.Errorf("listen on %q: not an IP address", address)
	}
	port, err := freePort(ctx, address)
	if err != nil {
		return err
	}
	etcdPort, err := freePort(ctx, loopback)
	if err != nil {
		return err
	}
	etcdLog, err := c.log("etcd")
	if err != nil {
		return err
	}
	serverLog, err := c.log("kube-apiserver")
	if err != nil {
		return err
	}
	certs := filepath.Join(c.dir, "certs")
	etcd := &envtest.Etcd{
		URL:  &url.URL{Scheme: "http", Host: net.JoinHostPort(loopback, strconv.Itoa(etcdPort))},
		Path: filepath.Join(c.assets, "etcd"), DataDir: filepath.Join(c.dir, "etcd"),
		Out: etcdLog, Err: etcdLog, StartTimeout: startTimeout, StopTimeout: stopTimeout,
	}
	// envtest itself adds --unsafe-no-fsync.
	etcd.Configure().Set("log-level", "warn")
	server := &envtest.APIServer{
		Path: filepath.Join(c.assets, "kube-apiserver"), CertDir: certs,
		Out: serverLog, Err: serverLog, StartTimeout: startTimeout, StopTimeout: stopTimeout,
		SecureServing: envtest.SecureServing{
			ListenAddr: envtest.ListenAddr{Address: address, Port: strconv.Itoa(port)},
		},
	}
	flags := server.Configure().
		Set("authorization-mode", "Node", "RBAC").
		// envtest switches ServiceAccount off because it has no controller that would make them. Here there is one.
		Disable("disable-admission-plugins").
		Set("enable-admission-plugins", "NodeRestriction").
		Set("service-account-issuer", "https://kubernetes.default.svc").
		// By default it is the address of the default route, which a namespace need not have.
		Set("advertise-address", address)
	if admission != "" {
		path := filepath.Join(certs, "admission.yaml")
		if err := os.WriteFile(path, []byte(admission), 0o600); err != nil {
			return fmt.Errorf("write the configuration of admission: %w", err)
		}
		flags.Set("admission-control-config-file", path)
	}
	if ip.IsLoopback() {
		// Endpoints must not be loopback addresses; the API server would try every ten seconds.
		flags.Set("endpoint-reconciler-type", "none")
	}
	c.plane = &envtest.ControlPlane{Etcd: etcd, APIServer: server, KubectlPath: filepath.Join(c.assets, "kubectl")}
	return nil
}

// freePort returns a TCP port of address that nobody listens on. It is below the ports that the kernel hands
// out to clients (/proc/sys/net/ipv4/ip_local_port_range): otherwise, while the server is stopped, a
// client that tries to reach it could be given that very port as its own and be connected with itself.
func freePort(ctx context.Context, address string) (int, error) {
	for {
		port := 20000 + rand.IntN(10000)
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find a port for a server: %w", err)
		}
		return port, listener.Close()
	}
}

// log opens the log of one part, to be closed by Stop.
func (c *ControlPlane) log(name string) (*os.File, error) {
	file, err := os.OpenFile(c.logPath(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	c.logs = append(c.logs, file)
	return file, nil
}

func (c *ControlPlane) logPath(name string) string {
	return filepath.Join(c.dir, "logs", name+".log")
}

// tail returns the last lines of the log of one part, headed by its name, as the end of an error's text.
func (c *ControlPlane) tail(name string) string {
	content, err := os.ReadFile(c.logPath(name))
	if err != nil || len(content) == 0 {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return fmt.Sprintf("\n%s:\n%s", name, bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// addAdmin makes the user behind Config.
func (c *ControlPlane) addAdmin() error {
	// A test wants to wait for the server, not for its own client.
	fast := &rest.Config{QPS: 1000, Burst: 2000}
	user, err := c.addUser(fast, "admin", "system:masters")
	if err != nil {
		return err
	}
	c.config = user.Config()
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		return fmt.Errorf("make a kubeconfig for admin: %w", err)
	}
	c.admin = filepath.Join(c.dir, "admin.kubeconfig")
	if err := os.WriteFile(c.admin, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig of admin: %w", err)
	}
	return nil
}

func (c *ControlPlane) addUser(base *rest.Config, user string, groups ...string) (*envtest.AuthenticatedUser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added, err := c.plane.AddUser(envtest.User{Name: user, Groups: groups}, base)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for user %s: %w", user, err)
	}
	return added, nil
}

// startControllers runs the kube-controller-manager.
func (c *ControlPlane) startControllers() error {
	kubeconfig, err := c.Kubeconfig("system:kube-controller-manager")
	if err != nil {
		return err
	}
	certs := c.plane.APIServer.CertDir
	path := filepath.Join(certs, "kube-controller-manager.kubeconfig")
	ca := filepath.Join(certs, "ca.crt")
	if err := errors.Join(os.WriteFile(path, kubeconfig, 0o600), os.WriteFile(ca, c.plane.APIServer.CA, 0o644)); err != nil {
		return fmt.Errorf("write the credentials of kube-controller-manager: %w", err)
	}
	log, err := c.log("kube-controller-manager")
	if err != nil {
		return err
	}
	c.manager, err = start(log, filepath.Join(c.assets, "kube-controller-manager"),
		"--kubeconfig="+path,
		"--use-service-account-credentials",
		"--root-ca-file="+ca,
		"--service-account-private-key-file="+filepath.Join(certs, "sa-signer.key"), // envtest's name
		"--allocate-node-cidrs=false",
		"--leader-elect=false",
		"--secure-port=0", // serves nothing: nobody asks, and two control planes on one machine would clash
		// With the default of 20 requests per second it spends four seconds on its controllers' ServiceAccounts.
		"--kube-api-qps=500", "--kube-api-burst=1000")
	return err
}

// awaitControllers waits for the ServiceAccount default, which a controller makes in each namespace.
func (c *ControlPlane) awaitControllers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	for {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("wait for the ServiceAccount default: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the ServiceAccount default: %w%s", ctx.Err(), c.tail("kube-controller-manager"))
		case <-c.manager.done:
			return fmt.Errorf("run kube-controller-manager: %w%s", c.manager.err, c.tail("kube-controller-manager"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Config returns a copy of the client configuration of a user in system:masters. Its client may make 1000
// requests per second.
func (c *ControlPlane) Config() *rest.Config {
	return rest.CopyConfig(c.config)
}

// AdminKubeconfig returns the path of a kubeconfig with the rights of Config. Stop removes it.
func (c *ControlPlane) AdminKubeconfig() string {
	return c.admin
}

// Kubeconfig returns a kubeconfig, complete with certificates, for a user with a name and groups of one's choice.
// What the user may do is up to RBAC; the group system:masters may do everything.
func (c *ControlPlane) Kubeconfig(user string, groups ...string) ([]byte, error) {
	added, err := c.addUser(nil, user, groups...)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := added.KubeConfig()
	if err != nil {
		return nil, fmt.Errorf("make a kubeconfig for %s: %w", user, err)
	}
	return kubeconfig, nil
}

// CA returns the certificate, in PEM, that clients check the API server with.
func (c *ControlPlane) CA() []byte {
	return c.plane.APIServer.CA
}

// Dir returns the directory of the control plane. Its logs are in Dir/logs.
func (c *ControlPlane) Dir() string {
	return c.dir
}

// Kubectl returns a kubectl of the version of the server, with the rights of Config, for the caller to run.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.plane.KubectlPath, append([]string{"--kubeconfig=" + c.admin}, args...)...)
}

// Stop ends all processes and removes the data. It may be called more than once.
func (c *ControlPlane) Stop() error {
	var errs []error
	// First those that are clients of the others, so that no one has to wait for a connection.
	for _, client := range []*process{c.manager, c.scheduler} {
		if client != nil {
			client.stop()
		}
	}
	if c.plane != nil {
		errs = append(errs, c.StopAPIServer())
		errs = append(errs, c.stopEnvtest(c.etcd(), c.plane.Etcd.Stop))
	}
	for _, log := range c.logs {
		_ = log.Close() // the others still write by descriptors of their own, if at all
	}
	c.logs = nil
	switch {
	case c.dir == "":
	case c.temporary:
		errs = append(errs, os.RemoveAll(c.dir))
	default:
		for _, name := range []string{"etcd", "certs", "admin.kubeconfig"} {
			errs = append(errs, os.RemoveAll(filepath.Join(c.dir, name)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the control plane: %w", err)
	}
	return nil
}
