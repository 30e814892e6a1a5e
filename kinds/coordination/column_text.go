package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func leaseTexts() map[string]string {
	return map[string]string{
		"Holder": coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"],
	}
}
