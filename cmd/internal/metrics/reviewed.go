package metrics

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	reviewTimeout = 10 * time.Second
	// How long an answer of the API server holds. A right that is taken away ends after allowedFor.
	allowedFor = time.Minute
	deniedFor  = 10 * time.Second
	// maxAnswers bounds what strangers can make us remember.
	maxAnswers = 256
)

// Reviewed lets through who shows a bearer token that the API server knows (TokenReview), if its owner may use the
// request's verb on its path (SubjectAccessReview, RBAC's nonResourceURLs). Others get 401 or 403, and everybody 500
// while the API server does not answer.
//
// It is for the agent, and does what controller-runtime's filters.WithAuthenticationAndAuthorization does for the
// controller, without k8s.io/apiserver, gRPC, CEL and OpenTelemetry behind that: with these an agent that counts on 8
// interfaces had 55 MiB resident instead of 37, and its budget is 40 (TestAnAgentFitsItsMemory in test/integration).
func Reviewed(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	tokens, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for token reviews: %w", err)
	}
	access, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for access reviews: %w", err)
	}
	return func(log logr.Logger, next http.Handler) (http.Handler, error) {
		return &reviewed{
			log: log, next: next,
			tokens: tokens.TokenReviews(), access: access.SubjectAccessReviews(),
			answers: cache.NewLRUExpireCache(maxAnswers),
		}, nil
	}, nil
}

type reviewed struct {
	log     logr.Logger
	next    http.Handler
	tokens  authenticationclient.TokenReviewInterface
	access  authorizationclient.SubjectAccessReviewInterface
	answers *cache.LRUExpireCache // by what was asked: http.StatusOK, StatusUnauthorized or StatusForbidden
}

func (r *reviewed) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	status, err := r.status(req)
	switch {
	case err != nil:
		r.log.Error(err, "Cannot tell who asks for metrics")
		http.Error(w, "the API server does not tell who you are", http.StatusInternalServerError)
	case status != http.StatusOK:
		http.Error(w, http.StatusText(status), status)
	default:
		r.next.ServeHTTP(w, req)
	}
}

func (r *reviewed) status(req *http.Request) (int, error) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); token == "" || !strings.EqualFold(scheme, "Bearer") {
		return http.StatusUnauthorized, nil
	}
	attributes := authorizationv1.NonResourceAttributes{Path: req.URL.Path, Verb: strings.ToLower(req.Method)}
	// Of the token only a hash is kept. None of the three can contain the zero that divides them.
	key := sha256.Sum256([]byte(attributes.Verb + "\x00" + attributes.Path + "\x00" + token))
	if known, ok := r.answers.Get(key); ok {
		if status, ok := known.(int); ok {
			return status, nil
		}
	}
	ctx, cancel := context.WithTimeout(req.Context(), reviewTimeout)
	defer cancel()
	status, err := r.review(ctx, token, attributes)
	switch {
	case err != nil:
	case status == http.StatusOK:
		r.answers.Add(key, status, allowedFor)
	default:
		r.answers.Add(key, status, deniedFor)
	}
	return status, err
}

// review asks the API server.
func (r *reviewed) review(ctx context.Context, token string, attributes authorizationv1.NonResourceAttributes) (int, error) {
	who, err := r.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("review a token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range who.Status.User.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.Status.User.Username, UID: who.Status.User.UID, Groups: who.Status.User.Groups, Extra: extra,
		NonResourceAttributes: &attributes,
	}}
	may, err := r.access.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("review the access of %s: %w", review.Spec.User, err)
	}
	if !may.Status.Allowed || may.Status.Denied {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}
