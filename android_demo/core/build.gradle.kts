// Pure Kotlin: no Android import, no dependency. src/runner is for machines without Gradle and is not part of this build.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    testImplementation(libs.junit)
    testImplementation(libs.kotlin.test)
}
