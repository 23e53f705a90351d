// The chat app. Its tests run with Maven: see ../README.md.
plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "io.pocketbert.app"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.compileSdk.get().toInt()
        versionCode = 1
        versionName = "1"
        ndk.abiFilters += listOf("arm64-v8a", "x86_64") // those that both engines have
    }
    sourceSets["main"].assets.srcDir("../../demo-bundles") // made by `make demo`
    androidResources {
        ignoreAssetsPattern = "!model.mlpackage:!tokenizer.json" // of a bundle, what Android does not need
        noCompress += listOf("pte", "tflite", "safetensors") // they would not shrink
    }
    packaging.jniLibs.pickFirsts += "**/libc++_shared.so" // both engines bring it
}

dependencies {
    implementation(project(":litert"))
    implementation(project(":executorch"))
    implementation(libs.coroutines.android)
}
