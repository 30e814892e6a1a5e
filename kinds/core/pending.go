package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateEndpoints(_ *corev1.Endpoints) field.ErrorList      { return nil }
func validateEvent(_ *corev1.Event) field.ErrorList              { return nil }
func validateEventUpdate(_, _ *corev1.Event) field.ErrorList     { return nil }
func validateLimitRange(_ *corev1.LimitRange) field.ErrorList    { return nil }
func validateNode(_ *corev1.Node) field.ErrorList                { return nil }
func validateNodeUpdate(_, _ *corev1.Node) field.ErrorList       { return nil }
func validateSecret(_ *corev1.Secret) field.ErrorList            { return nil }
func validateSecretUpdate(_, _ *corev1.Secret) field.ErrorList   { return nil }
func validateService(_ *corev1.Service) field.ErrorList          { return nil }
func validateServiceUpdate(_, _ *corev1.Service) field.ErrorList { return nil }
func validateServiceStatus(_, _ *corev1.Service) field.ErrorList { return nil }
func defaultService(s *corev1.Service)                           {}
func prepareServiceUpdate(s, old *corev1.Service)                { s.Status = old.Status }
